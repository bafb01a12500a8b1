"""IFEval in five languages: where the prompts come from, and lm_eval's hooks around ifeval_multi's verdicts.

Prompts are looked for in this order:

    IBERIAN_IFEVAL_EU=FILE    a JSONL file, in the authors' form or the Hub's (EU, GL, CA, ES, EN)
    IBERIAN_IFEVAL_ES=ID      a data set in the mirror or on the Hub, e.g. BSC-LT/IFEval_es, projecte-aina/IFEval_ca
    IBERIAN_IFEVAL_EU=own     this project's own prompts
    the mirror                IBERIAN_DATA=DIR, at DIR/ifeval/<language>/default/test.jsonl
    nothing of these          this project's own prompts (ifeval_multi/prompts), which need nothing from anywhere

The results say which they were (`configs -> metadata -> documents`, and their hash): scores on different prompts do not
compare. IBERIAN_IFEVAL_RESPONSE_LANGUAGE=1 counts the instructions on the answer's language; the results say that, too.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ifeval_multi
from ifeval_multi import lm_eval_support
from ifeval_multi.documents import rows
from lm_eval_iberian.benchmarks.languages import languages
from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents.loader import Documents, DocumentsError
from lm_eval_iberian.documents.revisions import Wanted
from lm_eval_iberian.task import DocumentTask

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
OWN = "own"
SCORE_LANGUAGE_VARIABLE = "IBERIAN_IFEVAL_RESPONSE_LANGUAGE"


class IfevalTask(DocumentTask):
    """IFEval in one language, named in the YAML under `dataset_kwargs: {language: eu}`."""

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read the prompts. Raises DocumentsError where they are named and cannot be had."""
        from datasets import Dataset

        language = str((dataset_kwargs or {})["language"])
        found, read = find_prompts(language, self.wanted)
        if not found:
            raise DocumentsError(f"{read.origin}: there are no prompts in it.")
        table = [
            {"prompt": row["prompt"], "language": language, "row": json.dumps(row, ensure_ascii=False)} for row in found
        ]
        self.dataset = {"test": Dataset.from_list(table)}
        self.say_read(read, f"{read.origin}, {len(table)} prompts")
        self.response_language = counts_response_language()
        self.say(
            settings={
                SCORE_LANGUAGE_VARIABLE: str(int(self.response_language)), "packages": lm_eval_support.packages()
            }
        )  # fmt: skip

    def process_results(self, doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
        """The verdicts on one answer, in both editions."""
        found = lm_eval_support.process_document(
            json.loads(doc["row"]), results[0], doc["language"], include_response_language=self.response_language
        )
        return {name: value for name, value in found.items() if name in self.aggregation()}

    def aggregation(self) -> dict[str, Callable[..., Any]]:
        """How each metric is averaged. lm_eval's own mean for prompts, so that it gives a standard error."""
        from lm_eval.api.registry import get_aggregation

        mean = get_aggregation("mean")
        return {
            name: mean if "prompt_level" in name else lm_eval_support.metric_aggregation(name)
            for name in metric_names()
        }

    def higher_is_better(self) -> dict[str, bool]:
        """More is better, but for answers that were cut while still reasoning."""
        return {name: name != lm_eval_support.UNFINISHED for name in metric_names()}


def counts_response_language() -> bool:
    """Whether instructions on the answer's language count. Raises DocumentsError for anything but 0 and 1."""
    said = os.environ.get(SCORE_LANGUAGE_VARIABLE, "").strip() or "0"
    if said not in ("0", "1"):
        raise DocumentsError(f"{SCORE_LANGUAGE_VARIABLE}={said}: write 1 to count these instructions, or 0.")
    return said == "1"


def metric_names() -> list[str]:
    """All levels in both editions, and each instruction type by the corrected edition's strict reading."""
    by_type = [name for name in lm_eval_support.metric_names() if name.startswith("strict_")]
    return [*lm_eval_support.metric_names(by_type=False), *by_type]


Found = tuple[list[dict[str, Any]], Documents]


def find_prompts(language: str, wanted: Callable[[str], Wanted]) -> Found:
    """The rows of a language's prompts, and what was read.

    Args:
        language: its code.
        wanted: the revision to read of a data set.
    """
    variable = f"IBERIAN_IFEVAL_{language.upper()}"
    named = os.environ.get(variable, "").strip()
    if named and named != OWN:
        return _named(named, variable, wanted)
    mirror = documents.mirror()
    mirrored = mirror / "ifeval" / language / "default" / "test.jsonl" if mirror else None
    if not named and mirrored and mirrored.is_file():
        return _rows(mirrored), _from(str(mirrored))
    own = Path(ifeval_multi.__file__).parent / "prompts" / f"{language}.jsonl"
    if not own.is_file():
        raise DocumentsError(f"IFEval ({language}): this project has no prompts of its own. {variable} must name some.")
    LOG.warning(
        "IFEval (%s) is scored on this project's own prompts, not on a published set. %s names another: a JSONL file "
        "or a data set%s.", language, variable, _published(language),
    )  # fmt: skip
    return _rows(own), _from("own prompts")


def _from(origin: str) -> Documents:
    """What is known of prompts in a file: where they lie."""
    read = Documents()
    read.origin = origin
    return read


def _published(language: str) -> str:
    known = languages()[language].ifeval if language in languages() else ""
    return f" ({known})" if known else ""


def _named(named: str, variable: str, wanted: Callable[[str], Wanted]) -> Found:
    path = Path(named).expanduser()
    if path.is_file():
        return _rows(path), _from(str(path))
    if path.suffix in {".jsonl", ".json"} or named.count("/") != 1:
        raise DocumentsError(
            f"{variable}={named}: no such file. Give a JSONL file of prompts (key, prompt, instruction_id_list, kwargs), "
            f"a data set as owner/name, or `{OWN}` for this project's own prompts."
        )
    found = documents.load(named, wanted=wanted(named))
    split = "test" if "test" in found else next(iter(found))
    rows_read = list(found[split])
    found.origin = f"{named}, {split}, {found.origin}"
    return rows_read, found


def _rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in _checked(path)]


def _checked(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Rows that ifeval_multi can read: a wrong one is named before anything is scored."""
    for where, row in rows(path):
        ifeval_multi.documents.from_row(row, where)
        yield where, row
