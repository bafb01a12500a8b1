"""A language's file, read and checked. Everything that differs between languages is in it.

A pack is one YAML file for each language, in ifeval_multi/languages/. SCHEMA in pack_reader.py defines its form: each
key, what it must hold, and whether it may be left out. Types that only this language has stand in a Python file beside
it (own_types.py). `iberian ifeval new LANG` writes a commented pack.

    from ifeval_multi import load_pack
    load_pack("gl").section_words      # ("sección", "parte", ...)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ifeval_multi.errors import PackError
from ifeval_multi.instructions import INSTRUCTIONS, InstructionType
from ifeval_multi.own_types import OwnCheck, OwnType, file_beside, read_own_types
from ifeval_multi.pack_reader import SCHEMA, Reader, read

LANGUAGES_FOLDER = Path(__file__).parent / "languages"
# Keys of the file whose last part is not the name of their field.
_OTHERWISE_CALLED = {
    "sections.words": "section_words", "sections.number": "section_number", "postscript.markers": "postscript_markers",
    "quotation.pairs": "quotation_pairs", "title.brackets": "title_brackets", "words.joiners": "word_joiners",
    "letters.variants": "letter_variants", "questions.opening": "question_opening",
    "exclamations.opening": "exclamation_opening",
}  # fmt: skip


@dataclass(frozen=True)
class Pack:
    """A checked pack. Field names are the keys of the file, flattened."""

    code: str
    name: str
    own_name: str
    labels: tuple[str, ...]
    sample: str
    neighbours: tuple[str, ...]
    markers: tuple[str, ...]
    this_language: tuple[str, ...]
    english: tuple[str, ...]
    option_sets: tuple[tuple[str, ...], ...]
    section_words: tuple[str, ...]
    section_number: str
    postscript_markers: tuple[str, ...]
    quotation_pairs: tuple[tuple[str, str], ...]
    title_brackets: tuple[tuple[str, str], ...]
    commas: str
    bullets: tuple[str, ...]
    word_joiners: str
    apostrophe: str
    one_word: tuple[str, ...]
    abbreviations_before_names: frozenset[str]
    abbreviations: frozenset[str]
    ordinal_dot: bool
    ordinal_followers: tuple[str, ...]
    speech_verbs: frozenset[str]
    closings: tuple[str, ...]
    endings: frozenset[str]
    forbidden_endings: frozenset[str]
    replaced_final: str
    endings_after_vowel: frozenset[str]
    endings_after_consonant: frozenset[str]
    doubled_final: str
    not_doubled: frozenset[str]
    function_words: frozenset[str]
    plurals: Mapping[str, tuple[str, ...]]
    irregular: Mapping[str, tuple[str, ...]]
    letter_variants: Mapping[str, str]
    caseless: str
    accented: str
    question_opening: str
    exclamation_opening: str
    numbers: Mapping[int, tuple[str, ...]]
    relations: Mapping[str, tuple[str, ...]]
    cues: Mapping[str, tuple[str, ...]]
    examples: tuple[Mapping[str, Any], ...]
    own_types: Mapping[str, OwnType] = field(compare=False)
    published: Mapping[str, OwnCheck] = field(compare=False)
    path: Path = field(compare=False)

    def __hash__(self) -> int:
        return hash((self.code, self.path))

    def digest(self) -> str:
        """A hash (16 hex digits) of the pack's file and of the one beside it."""
        files = [file for file in (self.path, file_beside(self.path)) if file.is_file()]
        return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]

    def kind(self, instruction_id: str) -> InstructionType | None:
        """The type of a canonical id, every language's or this one's own; None where there is none."""
        own = self.own_types.get(instruction_id)
        return own.kind if own else INSTRUCTIONS.get(instruction_id)


@lru_cache(maxsize=1)
def _shipped() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in LANGUAGES_FOLDER.glob("*.yaml")))


def languages() -> list[str]:
    """The codes of the languages that have a pack here."""
    return list(_shipped())


def load_pack(language: str | Path) -> Pack:
    """The pack of a language, by code ("gl") or by the path of a file of one's own.

    Raises:
        PackError: there is no such pack, or it does not hold what it must.
    """
    if language in _shipped():
        return _shipped_pack(str(language))
    path = Path(language)
    if path.suffix not in (".yaml", ".yml"):
        path = LANGUAGES_FOLDER / f"{language}.yaml"
    if not path.is_file():
        raise PackError(
            str(path),
            f"there is no pack for {str(language)!r}.",
            f"Languages with a pack: {', '.join(languages())}. "
            "Write one with `iberian ifeval new LANG`, or give the path of a .yaml file.",
        )
    return _load(path.resolve(), (_changed(path), _changed(file_beside(path))))


@lru_cache(maxsize=64)
def _shipped_pack(code: str) -> Pack:
    return _load((LANGUAGES_FOLDER / f"{code}.yaml").resolve(), (0, 0))


@lru_cache(maxsize=64)
def _load(path: Path, _when: tuple[int, int]) -> Pack:
    return _build(read(path))


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


def _plain(word: str) -> str:
    """A word of a list as texts are compared: in small letters, with a plain apostrophe, an abbreviation without its dot."""
    return word.lower().replace("’", "'").rstrip(".")


def _build(reader: Reader) -> Pack:
    own, kinds = read_own_types(reader.path), Pack.__annotations__
    found = {_OTHERWISE_CALLED.get(key) or key.rpartition(".")[2]: reader.get(key) for key in SCHEMA}
    found |= {name: frozenset(map(_plain, found[name])) for name in found if kinds[name].startswith("frozenset")}
    found |= {name: tuple(map(_plain, found[name])) for name in ("closings", "ordinal_followers")}
    for name in ("plurals", "irregular"):
        found[name] = {word.lower(): tuple(map(str.lower, forms)) for word, forms in found[name].items()}
    return Pack(**found, own_types=own.types, published=own.published, path=reader.path)
