"""A report as records of Every Eval Ever, a schema that others read: one JSON record a line, a line a model.

    iberian report out --format every_eval_ever > records.jsonl

The schema is that of https://github.com/evaleval/every_eval_ever, version 0.2.1 (eval.schema.json): one entry for each
task and metric that lm_eval wrote, as it wrote it. How a figure was measured stands beside it: prompt, shots, identity,
signature, and what keeps it from being a score of the whole benchmark. Before a record is sent to their data set, its
`source_organization_name` and `evaluator_relationship` want to be filled in: a report does not know who measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_eval_iberian.benchmarks.benchmark import IN_PERCENT, OF_HUNDRED, own_scale
from lm_eval_iberian.identity.prompting import shown
from lm_eval_iberian.scores.results import Leaf, Run, is_score
from lm_eval_iberian.scores.suite import ModelScores
from lm_eval_iberian.scores.tables import Report
from merge_hooks.texts import json_text

SCHEMA = "0.2.1"
NOT_SAID = "not said"
# Metrics that are shares of 1, by how their names begin; of others no range is stated.
SHARES = ("acc", "exact_match", "inst_level", "prompt_level", "f1", "macro_f1", "rouge", "strict_", "loose_")
# What lm_eval calls settings of generation -> what the schema does.
ARGUMENTS = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_gen_toks": "max_tokens"}


def records(report: Report) -> str:
    """The report's models as records, one a line."""
    made: dict[str, dict[str, Any]] = {}
    for one in map(record, report.models):
        name = one["evaluation_id"]
        if name in made:  # another row of the same model
            name = f"{name}/{one['dedupe_identity']['run_fingerprint']}"
        made[name] = {**one, "evaluation_id": name}
    return "".join(json_text(one) + "\n" for one in made.values())


def record(model: ModelScores) -> dict[str, Any]:
    """One model's record."""
    now = str(int(time.time()))
    stamp, named = model.runs[0].stamp, _identifier(model)
    entries = [entry for run in model.runs for entry in _entries(run)]
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"lm_eval_iberian/{named}/{now}",
        "dedupe_identity": {
            "run_fingerprint": model.runs[0].identity.digest, "hash_algorithm": "sha256",
            "canonicalization_version": "lm_eval_iberian.identity, cut to 32 digits",
        },
        "retrieved_timestamp": now,
        **_moment(model.runs[0]),
        "source_metadata": {
            "source_name": "lm_eval_iberian", "source_type": "evaluation_run",
            "source_organization_name": NOT_SAID, "evaluator_relationship": "other",
        },
        "eval_library": _library(model.runs[0]),
        "model_info": {
            "name": model.label, "id": named, **_engine(stamp),
            "additional_details": _texts({
                "signature": stamp.get("signature"), "recipe": stamp.get("recipe_resolved"),
                "sources": model.runs[0].sources or None,
            }),
        },
        "evaluation_results": entries,
    }  # fmt: skip


def _identifier(model: ModelScores) -> str:
    """The name of a model of the Hub; a merge has none, so its label stands there."""
    sources = list(model.runs[0].sources)
    name = sources[0] if len(sources) == 1 else model.label if sources else model.runs[0].model
    return Path(name).name if name.startswith(("/", ".")) else name


def _library(run: Run) -> dict[str, Any]:
    versions = run.stamp.get("versions")
    said = dict(versions) if isinstance(versions, Mapping) else {}
    said["transformers"] = run.data.get("transformers_version")
    return {"name": "lm_eval", "version": str(run.data.get("lm_eval_version") or "unknown"),
            "additional_details": _texts(said)}  # fmt: skip


def _engine(stamp: Mapping[str, Any]) -> dict[str, Any]:
    """What computed the answers: of the packages of the signature the one that is there for nothing else."""
    versions = stamp.get("versions")
    if not isinstance(versions, Mapping):
        return {}
    others = [name for name in versions if name not in ("mergekit", "transformers", "lm_eval_iberian")]
    name = others[0] if others else "transformers"
    return {"inference_engine": {"name": name, "version": str(versions[name])}} if name in versions else {}


def _entries(run: Run) -> Iterator[dict[str, Any]]:
    """One for each leaf task and metric that has a value which it can have."""
    for task in run.data.get("configs") or {}:
        for key in run.tasks.get(task) or {}:
            metric, comma, filter_name = key.partition(",")
            leaf = run.leaf(task, key, own_scale(task, metric))
            if comma and is_score(key, leaf.value) and leaf.value is not None:
                yield _entry(run, task, metric, filter_name, leaf)


def _entry(run: Run, task: str, metric: str, filter_name: str, leaf: Leaf) -> dict[str, Any]:
    assert leaf.value is not None
    higher = (run.data.get("higher_is_better") or {}).get(task)
    better = higher.get(metric, True) if isinstance(higher, Mapping) else True
    config = (run.data.get("configs") or {}).get(task) or {}
    settings = config.get("generation_kwargs")
    return {
        "evaluation_name": task,
        "source_data": _source(config, task, leaf.documents, run.documents(task)),
        **_moment(run),
        "metric_config": {
            "evaluation_description": f"{metric} of lm_eval's task {task}", "lower_is_better": not better,
            **_range(task, metric, leaf.value), "additional_details": _texts({"metric": metric, "filter": filter_name}),
        },
        "score_details": {
            "score": leaf.value,
            "details": _texts({
                "prompt": shown([leaf.prompt], False), "identity": run.identity.digest, "weights": run.stamp.get("signature_digest"),
                "not_whole": "; ".join(one for one in leaf.problems if "no number" not in one) or None,
                "look_at_the_answers": "; ".join(leaf.doubts) or None, "seeds": run.identity.parts["seed"] or None,
            }),
            **_uncertainty(run, task, metric, leaf.stderr),
        },
        "generation_config": {
            "generation_args": _arguments(settings if isinstance(settings, Mapping) else {}),
            "additional_details": _texts({"num_fewshot": leaf.shots, "generation_kwargs": settings}),
        },
    }  # fmt: skip


def _source(config: Mapping[str, Any], task: str, documents: str, count: int) -> dict[str, Any]:
    """Where the documents came from: "org/data@commit" is of the Hub."""
    place, at, revision = documents.partition("@")
    details = _texts({"documents": documents or None, "revision": revision or None, "task": task})
    path = place if at else str(config.get("dataset_path") or "")
    if not (at or not documents) or path.count("/") != 1:
        return {"dataset_name": task, "source_type": "other", "additional_details": details}
    split = config.get("test_split") or config.get("validation_split")
    found = {"dataset_name": path.rpartition("/")[2], "source_type": "hf_dataset", "hf_repo": path}
    found |= {"hf_split": str(split)} if split else {}
    return {**found, **({"samples_number": count} if count else {}), "additional_details": details}


def _range(task: str, metric: str, value: float) -> dict[str, Any]:
    """Known ends of a metric; a record without them says no type of score either. Values beyond them say that they are
    not known: TER may be more than 100."""
    of_hundred = metric in OF_HUNDRED or metric in IN_PERCENT
    top = own_scale(task, metric) or (100.0 if of_hundred else 1.0 if metric.startswith(SHARES) else None)
    return (
        {}
        if top is None or not 0.0 <= value <= top
        else {"score_type": "continuous", "min_score": 0.0, "max_score": top}
    )


def _uncertainty(run: Run, task: str, metric: str, stderr: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {"num_samples": run.documents(task)} if run.documents(task) else {}
    if stderr is not None:
        found["standard_error"] = {"value": stderr, "method": "as lm_eval computes it: over documents"}
    return {"uncertainty": found} if found else {}


def _arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers under the schema's names; everything stands in the details as well."""
    found = {ARGUMENTS[key]: value for key, value in settings.items()
             if key in ARGUMENTS and isinstance(value, (int, float)) and not isinstance(value, bool)}  # fmt: skip
    if "max_tokens" in found and (found["max_tokens"] != int(found["max_tokens"]) or found["max_tokens"] < 1):
        del found["max_tokens"]
    return found


def _moment(run: Run) -> dict[str, str]:
    date = run.data.get("date")
    return {"evaluation_timestamp": str(int(date))} if isinstance(date, (int, float)) else {}


def _texts(said: Mapping[str, Any]) -> dict[str, str]:
    """The schema's details are texts."""
    return {key: value if isinstance(value, str) else json_text(value, sort_keys=True)
            for key, value in said.items() if value is not None}  # fmt: skip
