"""A language's file, read and checked. Everything that differs between languages is in it.

A pack is one YAML file for each language, in ifeval_multi/languages/. SCHEMA in pack_reader.py defines its form: each
key, what it must hold, and whether it may be left out. `iberian ifeval new LANG` writes a commented pack.

    from ifeval_multi import load_pack
    load_pack("gl").section_words      # ("sección", "parte", ...)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ifeval_multi.errors import PackError
from ifeval_multi.pack_reader import Reader, read

LANGUAGES_FOLDER = Path(__file__).parent / "languages"


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
    endings: frozenset[str]
    forbidden_endings: frozenset[str]
    replaced_final: str
    letter_variants: Mapping[str, str]
    caseless: str
    accented: str
    question_opening: str
    exclamation_opening: str
    numbers: Mapping[int, tuple[str, ...]]
    relations: Mapping[str, tuple[str, ...]]
    cues: Mapping[str, tuple[str, ...]]
    examples: tuple[Mapping[str, Any], ...]
    path: Path = field(compare=False)

    def __hash__(self) -> int:
        return hash((self.code, self.path))


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
    return _load(path.resolve(), path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _shipped_pack(code: str) -> Pack:
    return _load((LANGUAGES_FOLDER / f"{code}.yaml").resolve(), 0)


@lru_cache(maxsize=64)
def _load(path: Path, _changed: int) -> Pack:
    return _build(read(path))


def _build(reader: Reader) -> Pack:
    get = reader.get
    return Pack(
        code=get("code"),
        name=get("name"),
        own_name=get("own_name"),
        labels=get("identification.labels"),
        sample=get("identification.sample"),
        neighbours=get("identification.neighbours"),
        markers=get("identification.markers"),
        this_language=get("identification.this_language"),
        english=get("identification.english"),
        option_sets=get("constrained_response.option_sets"),
        section_words=get("sections.words"),
        section_number=get("sections.number"),
        postscript_markers=get("postscript.markers"),
        quotation_pairs=get("quotation.pairs"),
        title_brackets=get("title.brackets"),
        commas=get("commas"),
        bullets=get("bullets"),
        word_joiners=get("words.joiners"),
        apostrophe=get("words.apostrophe"),
        one_word=get("words.one_word"),
        abbreviations_before_names=frozenset(get("sentences.abbreviations_before_names")),
        abbreviations=frozenset(get("sentences.abbreviations")),
        ordinal_dot=get("sentences.ordinal_dot"),
        ordinal_followers=get("sentences.ordinal_followers"),
        endings=frozenset(get("keywords.endings")),
        forbidden_endings=frozenset(get("keywords.forbidden_endings")),
        replaced_final=get("keywords.replaced_final"),
        letter_variants=get("letters.variants"),
        caseless=get("letters.caseless"),
        accented=get("letters.accented"),
        question_opening=get("questions.opening"),
        exclamation_opening=get("exclamations.opening"),
        numbers=get("prompts.numbers"),
        relations=get("prompts.relations"),
        cues=get("prompts.cues"),
        examples=get("examples"),
        path=reader.path,
    )
