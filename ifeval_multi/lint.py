"""Does a prompt set say in words what its kwargs say in numbers?

    from ifeval_multi import lint
    for finding in lint("ifeval_multi/prompts/gl.jsonl", "gl"): print(finding)

There are two kinds of findings. Form: keys, types, arguments, duplicates. Agreement: the prompt names each number,
keyword, phrase and sign in the kwargs, with the same relation ("at least" or "less than"); it asks for nothing that no
instruction checks; and its instructions do not contradict each other (lint_conflicts.py). Agreement is judged by the words that a pack lists
under `prompts`, so a finding there is a question to a speaker, not a proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ifeval_multi import lint_held_out, lint_rules
from ifeval_multi.documents import Document, from_row, prompt_rows
from ifeval_multi.errors import PackError, seen
from ifeval_multi.instructions import IFEVAL_TYPES, INSTRUCTIONS, RESPONSE_LANGUAGE, canonical_id
from ifeval_multi.pack import Pack, load_pack

# What the issue asks of a set of our own.
LEAST_PROMPTS, LEAST_OF_A_TYPE = 100, 4


@dataclass(frozen=True)
class Finding:
    """Something a person should look at, in one row of a prompt set."""

    where: str
    key: int | str
    instruction: str
    rule: str
    message: str

    def __str__(self) -> str:
        about = f" [{self.instruction}]" if self.instruction else ""
        return seen(f"{self.where}: key {self.key}{about} {self.rule}: {self.message}")


def lint(file: str | Path, language: str | Path, complete: bool = False) -> list[Finding]:
    """Everything the linter has to say about a prompt set.

    Args:
        file: JSONL, in any dialect that documents.read() knows.
        language: the language its prompts are written in.
        complete: ask for what a set of our own must have: 100 prompts, four of each type, no
            padding in kwargs, keys that are whole numbers. What only the published code cannot
            judge is then no finding.
    """
    pack = load_pack(language)
    findings: list[Finding] = []
    documents: list[Document] = []
    for where, row in prompt_rows(file):
        findings += _form(where, row, complete, pack)
        try:
            document = from_row(row, where, pack)
        except PackError as error:
            what = f"{error.what} {error.fix}".strip()
            findings.append(Finding(where, row.get("key", "?"), "", "form", what))
            continue
        for name in document.unknown:
            what = f"the pack {pack.code!r} knows no such type{_meant(name, pack)}; no score counts it"
            findings.append(Finding(where, document.key, name, "form", what))
        documents.append(document)
        findings += _agreement(document, pack)
    findings += _duplicates(documents)
    if complete:
        findings = [f for f in findings if f.rule != lint_rules.PUBLISHED]
        findings += _coverage(str(file), documents)
    return findings


def _meant(name: str, pack: Pack) -> str:
    """A known id that is written almost so, by its whole name or by what stands behind the colon."""
    known = [*INSTRUCTIONS, *pack.own_types]
    short = {one.rpartition(":")[2]: one for one in known}
    bare = canonical_id(name)
    close = get_close_matches(bare, known, 1, 0.8) or get_close_matches(bare.rpartition(":")[2], short, 1, 0.8)
    return f" (did you mean {short.get(close[0], close[0])!r}?)" if close else ""


def _form(where: str, row: dict[str, Any], complete: bool, pack: Pack) -> Iterator[Finding]:
    """Slips that reading forgives, and that a file should not have."""
    key = row.get("key", "?")
    if complete and (not isinstance(key, int) or isinstance(key, bool)):
        yield Finding(where, key, "", "form", "key is no whole number")
    ids, kwargs = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(ids, list) or not isinstance(kwargs, list):
        return
    for name, given in zip(ids, kwargs, strict=False):
        if isinstance(given, dict) and isinstance(name, str):
            for rule, message in _argument_slips(name, given, complete, pack):
                yield Finding(where, key, name, rule, message)


def _argument_slips(name: str, given: dict[str, Any], ours: bool, pack: Pack) -> Iterator[tuple[str, str]]:
    kind = pack.kind(canonical_id(name))
    for argument in ("keywords", "forbidden_words"):
        if isinstance(given.get(argument), str):
            text = f"{argument} is the string {given[argument]!r}; expected a list of texts"
            yield "string-for-list", text
    if not ours and kind is not None and all(given.get(needed) is not None for needed in kind.needed):
        stray = [
            argument for argument, value in given.items() if value is not None and not _is_argument(argument, pack)
        ]
        if stray:
            yield "form", f"kwargs that no type takes: {', '.join(map(repr, stray))}"
    if ours and kind is not None:
        unknown = [argument for argument in given if argument not in kind.arguments]
        if unknown:
            yield "form", f"kwargs it does not take: {', '.join(unknown)}"
        if name != kind.id:
            yield "form", f"write the id as {kind.id!r}"


def _is_argument(name: str, pack: Pack) -> bool:
    kinds = [*INSTRUCTIONS.values(), *(own.kind for own in pack.own_types.values())]
    return any(name in kind.arguments for kind in kinds)


def _agreement(document: Document, pack: Pack) -> Iterator[Finding]:
    prompt = lint_rules.PromptText(document.prompt, pack)
    counts = Counter(asked.id for asked in document.instructions)
    for asked in document.instructions:
        for rule, message in lint_rules.disagreements(asked, prompt, pack, counts[asked.id] > 1):
            yield Finding(document.where, document.key, asked.id, rule, message)
        for rule, message in lint_held_out.disagreements(asked, prompt, pack):
            yield Finding(document.where, document.key, asked.id, rule, message)
    for rule, message in lint_rules.over_all(document, prompt, pack):
        yield Finding(document.where, document.key, "", rule, message)


def _duplicates(documents: list[Document]) -> Iterator[Finding]:
    keys = Counter(str(document.key) for document in documents)
    prompts = Counter(document.prompt for document in documents)
    for document in documents:
        if (times := keys[str(document.key)]) > 1:
            text = f"key {document.key} comes {times} times"
            yield Finding(document.where, document.key, "", "duplicate", text)
        if prompts[document.prompt] > 1:
            yield Finding(document.where, document.key, "", "duplicate", "the prompt comes twice")


def _coverage(file: str, documents: list[Document]) -> list[Finding]:
    counts = Counter(i.id for document in documents for i in document.instructions)
    found = []
    if len(documents) < LEAST_PROMPTS:
        text = f"{len(documents)} prompts, at least {LEAST_PROMPTS} asked"
        found.append(Finding(file, "-", "", "coverage", text))
    for name in IFEVAL_TYPES:
        if counts[name] < LEAST_OF_A_TYPE:
            text = f"comes {counts[name]} times, at least {LEAST_OF_A_TYPE} asked"
            found.append(Finding(file, "-", name, "coverage", text))
    only = [d for d in documents if {i.id for i in d.instructions} == {RESPONSE_LANGUAGE}]
    if only:
        text = f"{len(only)} prompts ask for nothing but a language, which is not scored by default"
        found.append(Finding(file, "-", RESPONSE_LANGUAGE, "coverage", text))
    return found
