"""From one answer to verdicts: strict and loose, corrected or original.

Strict judges the answer as it is. Loose accepts it if any of eight variants passes: without
asterisks, without the first line, without the last, without both (Zhou et al. 2023, section 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ifeval_multi.checks import CORRECTED, Check
from ifeval_multi.documents import Document, Instruction, from_row, instruction
from ifeval_multi.errors import PackError
from ifeval_multi.held_out import HELD_OUT
from ifeval_multi.instructions import RESPONSE_LANGUAGE
from ifeval_multi.original import DIALECTS
from ifeval_multi.pack import Pack, load_pack
from ifeval_multi.text import normalise
from ifeval_multi.verdict import Verdict

_CHECKS = {**CORRECTED, **HELD_OUT}
EDITIONS = ("corrected", "original")
EMPTY = Verdict(False, "the answer is empty")
_REASONING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
)
_LINES = ("as it is", "without its first line", "without its last line", "without its first and last line")
_LACKS = (*_LINES, "without asterisks", *(f"{lines} and asterisks" for lines in _LINES[1:]))


def check(
    instruction_id: str,
    response: str,
    kwargs: Mapping[str, Any],
    pack: Pack,
    edition: str = "corrected",
    prompt: str = "",
) -> Verdict:
    """Was one instruction followed?

    Args:
        instruction_id: as in the data, with or without a language prefix.
        response: the answer, reasoning text already removed.
        kwargs: the instruction's arguments as the data have them.
        pack: the language, from load_pack().
        edition: "corrected" or "original".
        prompt: lets the corrected edition see what exactly was asked (which language, options).
    """
    return judge(instruction(instruction_id, kwargs, pack=pack), response, pack, edition, prompt)


def judge(asked: Instruction, response: str, pack: Pack, edition: str, prompt: str) -> Verdict:
    """check() for an Instruction that has been read already."""
    if edition not in EDITIONS:
        raise PackError("edition", f"{edition!r} is not known.", f"Use one of {EDITIONS}.")
    if not response.strip():
        return EMPTY
    if edition == "original":
        return _original(asked, pack)(response, _as_published(asked), pack)
    if not response[0].isalnum() and not normalise(response).strip():
        return EMPTY  # nothing but characters that print as nothing
    return _corrected(asked, pack)(response, {**asked.arguments, "prompt": prompt}, pack)


def _corrected(asked: Instruction, pack: Pack) -> Check:
    own = pack.own_types.get(asked.id)
    return own.check if own else _CHECKS[asked.id]


def _original(asked: Instruction, pack: Pack) -> Check:
    """The published check: of the id's dialect, or of the pack's language where the id has its prefix.

    A type that nobody has published is checked alike in both editions.
    """
    own = pack.own_types.get(asked.id)
    if own:
        return own.published or own.check
    if asked.prefix == pack.code and asked.id in pack.published:
        return pack.published[asked.id]
    return DIALECTS[asked.dialect].get(asked.id) or HELD_OUT[asked.id]


def _as_published(asked: Instruction) -> dict[str, Any]:
    """The arguments as the published code takes them: a string stays one where a list belongs.

    M-IFEval's code tests <= where lm_eval's es and ca sets say "less than".
    """
    found = {**asked.arguments}
    for name, value in asked.raw_arguments.items():
        if name in ("keywords", "forbidden_words"):
            found[name] = value
        elif asked.dialect == "m-ifeval" and name.endswith("relation") and str(value).strip().lower() == "less than":
            found[name] = "at most"
    return found


def variants(response: str) -> dict[str, str]:
    """The eight texts of the loose reading, each once, with what it lacks of the answer ("without its first line")."""
    pieces = response.split("\n")
    whole = [response, "\n".join(pieces[1:]).strip(), "\n".join(pieces[:-1]).strip(), "\n".join(pieces[1:-1]).strip()]
    texts = [*whole, *(text.replace("*", "") for text in whole)]
    found: dict[str, str] = {}
    for text, lacks in zip(texts, _LACKS, strict=True):
        found.setdefault(text, lacks)
    return found


def strip_reasoning(text: str, think_end_token: str | None = None) -> str:
    """The answer without its reasoning: <think>…</think> and what think_end_token ends.

    An answer that opens a block and never closes it was cut by the token limit: nothing is left.
    A closing tag without an opening one is the end of a block that the chat template opened.
    """
    if think_end_token and think_end_token in text:
        text = text.rpartition(think_end_token)[2]
    for opening, closing in _REASONING:
        if opening in text or closing in text:
            text = _without_blocks(text, opening, closing)
    return text.strip("\n") if text.strip() else ""


def _without_blocks(text: str, opening: str, closing: str) -> str:
    kept: list[str] = []
    position = _past_closings(text, 0, opening, closing)
    while (start := text.find(opening, position)) >= 0:
        kept.append(text[position:start])
        end = text.find(closing, start)
        if end < 0:
            # An answer that speaks of the tag is left as it is; one that begins with it was cut.
            return "".join([*kept, text[start:]] if any(map(str.strip, kept)) else "")
        position = _past_closings(text, end, opening, closing)
    return "".join([*kept, text[position:]]).lstrip()


def _past_closings(text: str, position: int, opening: str, closing: str) -> int:
    """Behind the last closing tag that stands before the next opening one: blocks may stand in blocks."""
    start = text.find(opening, position)
    end = text.rfind(closing, position, start if start >= 0 else len(text))
    return end + len(closing) if end >= 0 else position


def is_unfinished(text: str, think_end_token: str | None = None) -> bool:
    """Was the answer cut while it was still reasoning?"""
    if think_end_token and think_end_token in text:
        return False
    start = text.lstrip()
    return any(start.startswith(opening) and closing not in start for opening, closing in _REASONING)


def _in_its_language(asked: Instruction, document: Document) -> Instruction:
    """What asks for capitals or small letters wants them in the language that the prompt's response_language names."""
    named = [i.arguments["language"] for i in document.instructions if i.id == RESPONSE_LANGUAGE]
    if not named or asked.id not in ("change_case:english_capital", "change_case:english_lowercase"):
        return asked
    return replace(asked, arguments={**asked.arguments, "language": named[-1]})


def evaluate_response(
    document: Document | Mapping[str, Any],
    response: str,
    language: str,
    edition: str = "corrected",
    include_response_language: bool = False,
    think_end_token: str | None = None,
) -> dict[str, Any]:
    """Strict and loose verdicts on every instruction of one document.

    The corrected edition removes reasoning text first. The original edition judges the answer as
    it came, as the published figures did, unless think_end_token asks for removal.

    Returns:
        {"key", "instruction_ids", "strict": [bool], "loose": [bool], "reasons": [str], "unknown": [str]}; the
        first lists are empty where no instruction is left to score, and "unknown" names the ids that were left out
        because the pack knows no such type. A reason is that of the strict verdict; where only loose followed, it
        says by which text.
    """
    pack = load_pack(language)
    asked = document if isinstance(document, Document) else from_row(document, pack=pack)
    if edition == "corrected" or think_end_token:
        response = strip_reasoning(response, think_end_token)
    scored = [_in_its_language(i, asked) for i in asked.scored(include_response_language)]
    others = [(text, lacks) for text, lacks in variants(response).items() if text != response]
    strict = [judge(i, response, pack, edition, asked.prompt) for i in scored]
    helped = [
        "" if verdict.followed else next((lacks for t, lacks in others if judge(i, t, pack, edition, asked.prompt)), "")
        for i, verdict in zip(scored, strict, strict=True)
    ]
    return {
        "key": asked.key,
        "instruction_ids": [i.id for i in scored],
        "strict": [verdict.followed for verdict in strict],
        "loose": [verdict.followed or bool(lacks) for verdict, lacks in zip(strict, helped, strict=True)],
        "reasons": [
            verdict.reason + (f"; loose: followed {lacks}" if lacks else "")
            for verdict, lacks in zip(strict, helped, strict=True)
        ],
        "unknown": list(asked.unknown),
    }
