"""Adding a language: write a commented pack, and say what is missing from it.

iberian ifeval new fr --folder packs      # packs/fr.yaml and packs/test_fr.py
iberian ifeval check packs/fr.yaml
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ifeval_multi.errors import PackError
from ifeval_multi.evaluate import check
from ifeval_multi.instructions import INSTRUCTIONS, canonical_id
from ifeval_multi.language_id import identify
from ifeval_multi.pack import LANGUAGES_FOLDER, Pack, load_pack
from ifeval_multi.probes import probes

TEMPLATES = Path(__file__).parent / "templates"
_CODE = re.compile(r"[a-z]{2,3}")
_LEAST_SAMPLE = 60


def write_new(code: str, folder: Path | None = None, name: str = "") -> list[Path]:
    """Write a commented pack (and, outside ifeval_multi/languages, a test file) to fill in.

    Raises:
        PackError: the code is none, or there is a file already (nothing is overwritten).
    """
    if not _CODE.fullmatch(code):
        raise PackError(repr(code), "is no language code.", "Use ISO 639: two or three letters.")
    place = folder or LANGUAGES_FOLDER
    place.mkdir(parents=True, exist_ok=True)
    files = {"pack.yaml": place / f"{code}.yaml", "test_language.txt": place / f"test_{code}.py"}
    if folder is None:
        del files["test_language.txt"]  # tests/ifeval_multi tests every pack that is there
    for target in files.values():
        if target.exists():
            raise PackError(str(target), "is there already.", "Edit it, or take it away first.")
    for template, target in files.items():
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        text = text.replace("LANGUAGE", name or "TODO").replace("CODE", code)
        target.write_text(text, encoding="utf-8")
    return list(files.values())


def problems(language: str | Path) -> list[str]:
    """What is missing from a pack or wrong in it; empty if the pack is ready.

    Raises:
        PackError: the file is not a pack at all.
    """
    pack = load_pack(language)
    left = _todo_lines(pack)
    # A pack with TODO in it fails half of the answers for that reason only.
    return left or [*_identification(pack), *_examples(pack), *_probes(pack)]


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


def _examples(pack: Pack) -> Iterator[str]:
    if not pack.examples:
        yield "examples: none; give some that are tricky in this language"
    for number, example in enumerate(pack.examples, 1):
        name = str(example["type"])
        if canonical_id(name) not in INSTRUCTIONS:
            yield f"examples, number {number}: {name!r} is no instruction type"
            continue
        verdict = check(name, str(example["answer"]), example.get("arguments", {}), pack)
        if verdict.followed != example["followed"]:
            told = f"should be {example['followed']}, is {verdict.followed}"
            yield f"examples, number {number} ({name}): {told}: {verdict.reason}"


def _probes(pack: Pack) -> Iterator[str]:
    for probe in probes(pack):
        verdict = check(probe.type, probe.answer, probe.arguments, pack)
        if verdict.followed != probe.followed:
            yield (
                f"built-in answer for {probe.type} {probe.arguments or ''}: should be "
                f"{probe.followed}, is {verdict.followed} ({verdict.reason}): {probe.answer!r}"
            )
