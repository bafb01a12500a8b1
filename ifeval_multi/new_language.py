"""Adding a language: write a commented pack, and say what is missing from it.

iberian ifeval new it --out packs      # packs/it.yaml, packs/test_it.py and packs/ifeval_it.yaml
iberian ifeval check packs/it.yaml
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ifeval_multi.errors import PackError
from ifeval_multi.evaluate import check
from ifeval_multi.instructions import INSTRUCTIONS, canonical_id
from ifeval_multi.language_id import identify
from ifeval_multi.own_types import file_beside
from ifeval_multi.pack import LANGUAGES_FOLDER, Pack, languages, load_pack
from ifeval_multi.probes import probes
from ifeval_multi.relations import COMPARISONS
from ifeval_multi.text import fold

TEMPLATES = Path(__file__).parent / "templates"
_CODE = re.compile(r"[a-z]{2,3}")
# The other codes (ISO 639-2 and -3) of the languages that ship.
_SHORT = {
    "baq": "eu", "eus": "eu", "cat": "ca", "eng": "en", "fra": "fr", "fre": "fr", "glg": "gl", "oci": "oc",
    "por": "pt", "spa": "es",
}  # fmt: skip
_LEAST_SAMPLE = 60


def write_new(code: str, folder: Path | None = None, name: str = "", from_nothing: bool = False) -> list[Path]:
    """Write a commented pack to fill in, its test, and a task of lm_eval with it.

    Args:
        code: of the language.
        folder: where to write; without it the current folder. In ifeval_multi/languages only the pack is written: our
            tests try every pack that is there, and tasks/ has the tasks.
        name: of the language, in English.
        from_nothing: also where a pack of the language ships.

    Raises:
        PackError: the code is none, its language ships, or there is a file already (nothing is overwritten).
    """
    if not _CODE.fullmatch(code):
        raise PackError(repr(code), "is no language code.", "Use ISO 639: two or three letters.")
    if not from_nothing:
        _refuse_shipped(code)
    place = folder or Path()
    place.mkdir(parents=True, exist_ok=True)
    files = {"pack.yaml": place / f"{code}.yaml"}
    if place.resolve() != LANGUAGES_FOLDER.resolve():
        files |= {"test_language.txt": place / f"test_{code}.py", "task.yaml": place / f"ifeval_{code}.yaml"}
    for target in files.values():
        if target.exists():
            raise PackError(str(target), "is there already.", "Edit it, or take it away first.")
    for template, target in files.items():
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        text = text.replace("LANGUAGE", name or "TODO").replace("CODE", code).replace("FOLDER", str(place))
        target.write_text(text, encoding="utf-8")
    return list(files.values())


def _refuse_shipped(code: str) -> None:
    known = _SHORT.get(code, code)
    if known in languages():
        pack = load_pack(known)
        own = "" if known == code else f", as {known!r}"
        files = [str(file) for file in (pack.path, file_beside(pack.path)) if file.is_file()]
        raise PackError(
            code,
            f"{pack.name} ships already{own}: --language {known}.",
            f"To change it, copy {' and '.join(files)} and give the copy's path. --from-nothing writes an empty pack.",
        )


def problems(language: str | Path) -> list[str]:
    """What is missing from a pack or wrong in it; empty if the pack is ready.

    Raises:
        PackError: the file is not a pack at all.
    """
    pack = load_pack(language)
    left = _todo_lines(pack)
    # A pack with TODO in it fails half of the answers for that reason only.
    return left or [*_identification(pack), *_lists(pack), *_examples(pack), *_own_types(pack), *_probes(pack)]


def refuse_unfinished(pack: Pack) -> None:
    """Raises PackError where a pack still holds TODO: neither a prompt nor an answer can be read by it."""
    if left := len(_todo_lines(pack)):
        raise PackError(
            str(pack.path),
            f"the pack is not finished: {left} {'line' if left == 1 else 'lines'} with TODO.",
            f"Fill them in; `iberian ifeval check {shlex.quote(str(pack.path))}` names each.",
        )


def _todo_lines(pack: Pack) -> list[str]:
    lines = pack.path.read_text(encoding="utf-8").split("\n")
    return [
        f"line {number}: TODO: {line.split('#')[0].strip()}"
        for number, line in enumerate(lines, 1)
        if "TODO" in line.split("#")[0]
    ]


def _identification(pack: Pack) -> Iterator[str]:
    if len(pack.sample) < _LEAST_SAMPLE or not {s.isupper() for s in pack.sample} >= {True, False}:
        yield f"identification.sample: shorter than {_LEAST_SAMPLE} characters, or without capitals"
    if any(comma in pack.sample for comma in pack.commas):
        yield "identification.sample: holds a comma; the built-in answers need one without"
    for text in (pack.sample, pack.sample.upper()):
        found = identify(text)
        if found not in (*pack.labels, *pack.neighbours):
            yield f"identification.sample: identified as {found!r}, not {list(pack.labels)}: {text}"


def _lists(pack: Pack) -> Iterator[str]:
    """What a list lacks or has twice: each would make wrong verdicts, and findings of the linter fail to appear."""
    for key, needed, found in (
        ("commas", [","], list(pack.commas)),
        ("bullets", ["*", "-"], list(pack.bullets)),
        ("quotation.pairs", [('"', '"')], list(pack.quotation_pairs)),
        ("title.brackets", [("<<", ">>")], list(pack.title_brackets)),
        ("prompts.relations", list(COMPARISONS), list(pack.relations)),
    ):
        for one in needed:
            if one not in found:
                yield f"{key}: {_shown(one)} is missing; prompts ask for it in every language"
    for key, listed in (
        ("identification.this_language", pack.this_language),
        ("identification.english", pack.english),
        ("sections.words", pack.section_words),
        ("postscript.markers", pack.postscript_markers),
    ):
        if not listed:
            yield f"{key}: empty; every language has some"
    for name in sorted(set(pack.relations) - set(COMPARISONS)):
        yield f"prompts.relations: {name!r} is no relation; there are {', '.join(COMPARISONS)}"
    types = {kind.rpartition(":")[2] for kind in (*INSTRUCTIONS, *pack.own_types)}
    for name in sorted(set(pack.cues) - types):
        # One that looks like none may be of a type of the language's own, which is yet to be written.
        for close in difflib.get_close_matches(name, types, n=1, cutoff=0.85):
            yield f"prompts.cues: {name!r} is no instruction type (did you mean {close!r}?)"
    yield from _twice("prompts.relations", pack.relations)
    yield from _twice("prompts.numbers", pack.numbers)
    for number, options in enumerate(pack.option_sets, 1):
        if len({fold(option).rstrip(".") for option in options}) < len(options):
            yield f"constrained_response.option_sets, number {number}: an option comes twice"
    for bullet in pack.bullets:
        if len(bullet) > 1:
            yield f"bullets: {bullet!r} is more than one sign"


def _shown(one: str | tuple[str, str]) -> str:
    return repr(one) if isinstance(one, str) else " ".join(one)


def _twice(key: str, lists: Mapping[Any, Iterable[str]]) -> Iterator[str]:
    """Phrases that stand under two names."""
    under: dict[str, Any] = {}
    for name, phrases in lists.items():
        for phrase in map(fold, phrases):
            if under.setdefault(phrase, name) != name:
                yield f"{key}: {phrase!r} stands under {under[phrase]} and under {name}"


def _examples(pack: Pack) -> Iterator[str]:
    if not pack.examples:
        yield "examples: none; give some that are tricky in this language"
    for number, example in enumerate(pack.examples, 1):
        name = str(example["type"])
        if not pack.kind(canonical_id(name)):
            yield f"examples, number {number}: {name!r} is no instruction type"
            continue
        verdict = check(name, str(example["answer"]), example.get("arguments", {}), pack)
        if verdict.followed != example["followed"]:
            told = f"should be {example['followed']}, is {verdict.followed}"
            yield f"examples, number {number} ({name}): {told}: {verdict.reason}"


def _own_types(pack: Pack) -> Iterator[str]:
    for own in pack.own_types.values():
        for number, example in enumerate(own.examples, 1):
            verdict = check(own.kind.id, example.answer, example.arguments, pack)
            if verdict.followed != example.followed:
                told = f"should be {example.followed}, is {verdict.followed}"
                yield f"{own.kind.id}, example {number}: {told}: {verdict.reason}"


def _probes(pack: Pack) -> Iterator[str]:
    for probe in probes(pack):
        verdict = check(probe.type, probe.answer, probe.arguments, pack)
        if verdict.followed != probe.followed:
            yield (
                f"built-in answer for {probe.type} {probe.arguments or ''}: should be "
                f"{probe.followed}, is {verdict.followed} ({verdict.reason}): {probe.answer!r}"
            )
