"""The scores of a merge as the Hub reads them from its card: `model-index`, one entry a task and metric.

    entries = eval_results([(identity, results), ...])     # huggingface_hub.EvalResult, for card_head

Only scores of whole benchmarks go in: whoever reads a leaderboard does not see a note. Each entry says how it was
measured: shots, prompt, the digest of the weights' signature, and the measurement's identity where the caller knows it.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from merge_hooks.hashing import digest

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

Results = Mapping[str, Any]
# "org/data@commit" as our tasks write where documents came from.
_ON_THE_HUB = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{7,40})")


def eval_results(
    results: Sequence[Results], prompted: Callable[[Results], str], shortened: Callable[[Results, str], str]
) -> list[EvalResult]:
    """The entries, by task and metric; several runs of one task are averaged.

    Args:
        results: what lm_eval writes; `identity`, where a caller put it in, is that of the measurement.
        prompted: says in words how prompts were made.
        shortened: says why a task's score is not of its whole benchmark; "" where it is.
    """
    found: dict[tuple[str, str, str], list[tuple[float, Results]]] = {}
    for content in results:
        for task, scores in content.get("results", {}).items():
            if task not in (content.get("configs") or {task: None}) or shortened(content, task):
                continue
            for metric, value in scores_of(scores):
                found.setdefault((task, metric, prompted(content)), []).append((value, content))
    return [_entry(*key, values) for key, values in sorted(found.items(), key=lambda one: one[0])]


def scores_of(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The scores of a task: "acc", or with its filter "exact_match,strict-match": two filters of an answer are two scores.

    Not what is no number, nor `bypass`, which `--predict_only` writes.
    """
    for key, value in entry.items():
        name, comma, _ = key.partition(",")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if comma and is_number and not name.endswith("_stderr") and name != "bypass":
            yield key.removesuffix(",none"), float(value)


def _entry(task: str, metric: str, prompt: str, values: Sequence[tuple[float, Results]]) -> EvalResult:
    from huggingface_hub import EvalResult

    contents = [content for _, content in values]
    config = _mapping(_mapping(contents[0].get("configs")).get(task))
    documents = str(_mapping(config.get("metadata")).get("documents") or config.get("dataset_path") or task)
    hub = _ON_THE_HUB.fullmatch(documents)
    shots = _mapping(contents[0].get("n-shot")).get(task)
    return EvalResult(
        task_type="text-generation", task_name="Text generation",
        dataset_type=hub[1] if hub else task, dataset_name=task, dataset_revision=hub[2] if hub else None,
        dataset_config=_text(config.get("dataset_name")), dataset_split=_text(config.get("test_split")),
        dataset_args={} if shots is None else {"num_few_shot": shots},
        metric_type=metric.partition(",")[0], metric_name=metric, metric_value=statistics.fmean(value for value, _ in values),
        metric_args=_how(task, prompt, contents),
    )  # fmt: skip


def _how(task: str, prompt: str, contents: Sequence[Results]) -> dict[str, Any]:
    """What the figure depends on, in a few words and digests."""
    signatures = [str(_mapping(_mapping(one.get("config")).get("iberian")).get("signature", "")) for one in contents]
    made: dict[str, Any] = {"prompt": prompt, "signature": digest(sorted(set(signatures)), 16)}
    identities = sorted({str(one["identity"]) for one in contents if one.get("identity")})
    made |= {"identity": ", ".join(identities)} if identities else {}
    version = _mapping(contents[0].get("versions")).get(task)
    made |= {"task_version": version} if version is not None else {}
    return made | ({"runs": len(contents)} if len(contents) > 1 else {})


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
