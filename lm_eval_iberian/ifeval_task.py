"""IFEval in one language: where the prompts come from, and lm_eval's hooks around ifeval_multi's verdicts.

A YAML names the language: `dataset_kwargs: {language: eu}`. One of a language that does not ship also names `pack:`, the
language's file, and `prompts:`, a JSONL file; both are looked for beside the YAML. Prompts are looked for in this order:

    IBERIAN_IFEVAL_EU=FILE    a JSONL file, in the authors' form or the Hub's (EU, GL, CA, ES, EN, PT, ...)
    IBERIAN_IFEVAL_ES=ID      a data set in the mirror or on the Hub, e.g. BSC-LT/IFEval_es, projecte-aina/IFEval_ca
    IBERIAN_IFEVAL_EU=own     this project's own prompts
    `prompts:` of the YAML    a JSONL file beside it
    the mirror                IBERIAN_DATA=DIR, at DIR/ifeval/<language>/default/test.jsonl
    nothing of these          this project's own prompts (ifeval_multi/prompts), which need nothing from anywhere

The results say which they were (`configs -> metadata -> documents`, and their hash): scores on different prompts do not
compare. IBERIAN_IFEVAL_RESPONSE_LANGUAGE=1 counts the instructions on the answer's language; the results say that, too.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ifeval_multi
from ifeval_multi import Pack, lm_eval_support
from ifeval_multi.documents import from_row, rows
from ifeval_multi.evaluate import EDITIONS
from ifeval_multi.new_language import refuse_unfinished
from lm_eval_iberian.benchmarks.languages import languages
from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents.loader import Documents, DocumentsError
from lm_eval_iberian.documents.revisions import Wanted
from lm_eval_iberian.task import DocumentTask

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
OWN = "own"
SCORE_LANGUAGE_VARIABLE = "IBERIAN_IFEVAL_RESPONSE_LANGUAGE"
Found = tuple[list[dict[str, Any]], Documents]


class IfevalTask(DocumentTask):
    """IFEval in one language, named in the YAML under `dataset_kwargs`."""

    # The editions that are scored.
    editions: tuple[str, ...] = EDITIONS

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read the pack and the prompts. Raises DocumentsError where they are named and cannot be had."""
        from datasets import Dataset

        asked = dataset_kwargs or {}
        language, named = str(asked["language"]), asked.get("pack")
        pack = str(self.beside(named)) if named else language
        self.pack = ifeval_multi.load_pack(pack)
        if named:
            refuse_unfinished(self.pack)
        found, read = self.prompts(language)
        if not found:
            raise DocumentsError(f"{read.origin}: there are no prompts in it.")
        table = [
            {"prompt": row["prompt"], "language": pack, "row": json.dumps(row, ensure_ascii=False)} for row in found
        ]
        self.dataset = Documents(test=Dataset.from_list(table))
        read.notes += left_out(found, self.pack)
        self.say_read(read, f"{read.origin}, {len(table)} prompts")
        self.response_language = counts_response_language()
        settings = {
            SCORE_LANGUAGE_VARIABLE: str(int(self.response_language)), "packages": lm_eval_support.packages()
        }  # fmt: skip
        self.say(settings={**settings, "pack": self.pack.digest()} if named else settings)

    def prompts(self, language: str) -> Found:
        """The rows of the prompts, and what was read."""
        named = (self.config.dataset_kwargs or {}).get("prompts")
        return find_prompts(language, self.wanted, self.pack, self.beside(named) if named else None)

    def beside(self, name: str) -> Path:
        """A file that the YAML names: beside the YAML, or where its path leads."""
        source = (self.config.metadata or {}).get("config_source")
        place = Path(str(source)).parent / name if source else Path(name)
        if not place.is_file():
            raise DocumentsError(f"{self.config.task}: there is no file {place}, which its YAML names.")
        return place

    def process_results(self, doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
        """The verdicts on one answer, in each edition."""
        found = lm_eval_support.process_document(
            json.loads(doc["row"]), results[0], doc["language"], editions=self.editions,
            include_response_language=self.response_language,
        )  # fmt: skip
        return {name: value for name, value in found.items() if name in self.aggregation()}

    def aggregation(self) -> dict[str, Callable[..., Any]]:
        """How each metric is averaged. lm_eval's own mean for prompts, so that it gives a standard error."""
        from lm_eval.api.registry import get_aggregation

        mean = get_aggregation("mean")
        return {
            name: mean if "prompt_level" in name else lm_eval_support.metric_aggregation(name)
            for name in self.metric_names()
        }

    def metric_names(self) -> list[str]:
        """All levels in each edition, and each instruction type by the corrected edition's strict reading."""
        prefixes = [lm_eval_support.PREFIXES[edition] for edition in self.editions]
        levels = [prefix + level for prefix in prefixes for level in lm_eval_support.LEVELS]
        types = [lm_eval_support.type_metric(name, "strict") for name in self.types()]
        return [*levels, lm_eval_support.UNFINISHED, *types]

    def types(self) -> tuple[str, ...]:
        """The instruction types that a metric is named after."""
        return (*lm_eval_support.TYPES, *self.pack.own_types)

    def higher_is_better(self) -> dict[str, bool]:
        """More is better, but for answers that were cut while still reasoning."""
        return {name: name != lm_eval_support.UNFINISHED for name in self.metric_names()}


def counts_response_language() -> bool:
    """Whether instructions on the answer's language count. Raises DocumentsError for anything but 0 and 1."""
    said = os.environ.get(SCORE_LANGUAGE_VARIABLE, "").strip() or "0"
    if said not in ("0", "1"):
        raise DocumentsError(f"{SCORE_LANGUAGE_VARIABLE}={said}: write 1 to count these instructions, or 0.")
    return said == "1"


def left_out(found: Iterable[dict[str, Any]], pack: Pack) -> tuple[str, ...]:
    """Which instructions no score counts, because the pack knows no such type, and how many of each."""
    names = Counter(name for row in found for name in from_row(row, pack=pack).unknown)
    return tuple(f"left out: {count} x {name}, a type that the pack does not know" for name, count in names.items())


def find_prompts(language: str, wanted: Callable[[str], Wanted], pack: Pack, beside: Path | None) -> Found:
    """The rows of a language's prompts, and what was read.

    Args:
        language: its code.
        wanted: the revision to read of a data set.
        pack: its pack.
        beside: the file that the YAML names, where it names one.
    """
    variable = f"IBERIAN_IFEVAL_{language.upper()}"
    named = os.environ.get(variable, "").strip()
    if named and named != OWN:
        return _named(named, variable, pack, wanted)
    if beside and not named:
        return read_rows(beside, pack), from_file(str(beside))
    mirror = documents.mirror()
    mirrored = mirror / "ifeval" / language / "default" / "test.jsonl" if mirror else None
    if not named and mirrored and mirrored.is_file():
        return read_rows(mirrored, pack), from_file(str(mirrored))
    own = Path(ifeval_multi.__file__).parent / "prompts" / f"{language}.jsonl"
    if not own.is_file():
        raise DocumentsError(f"IFEval ({language}): this project has no prompts of its own. {variable} must name some.")
    LOG.warning(
        "IFEval (%s) is scored on this project's own prompts, not on a published set. %s names another: a JSONL file "
        "or a data set%s.", language, variable, _published(language),
    )  # fmt: skip
    return read_rows(own, pack), from_file("own prompts")


def from_file(origin: str) -> Documents:
    """What is known of prompts in a file: where they lie."""
    read = Documents()
    read.origin = origin
    return read


def _published(language: str) -> str:
    known = languages()[language].ifeval if language in languages() else ""
    return f" ({known})" if known else ""


def _named(named: str, variable: str, pack: Pack, wanted: Callable[[str], Wanted]) -> Found:
    path = Path(named).expanduser()
    if path.is_file():
        return read_rows(path, pack), from_file(str(path))
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


def read_rows(path: Path, pack: Pack) -> list[dict[str, Any]]:
    """The rows of a file. Raises PackError for one that cannot be scored, before anything is scored."""
    found = []
    for where, row in rows(path):
        from_row(row, where, pack)
        found.append(row)
    return found
