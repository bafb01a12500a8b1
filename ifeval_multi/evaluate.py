"""From one answer to verdicts: strict and loose, corrected or original.

Strict judges the answer as it is. Loose accepts it if any of eight variants passes: without
asterisks, without the first line, without the last, without both (Zhou et al. 2023, section 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ifeval_multi.checks import CORRECTED
from ifeval_multi.documents import Document, Instruction, from_row, instruction
from ifeval_multi.errors import PackError
from ifeval_multi.original import DIALECTS
from ifeval_multi.pack import Pack, load_pack
from ifeval_multi.verdict import Verdict

EDITIONS = ("corrected", "original")
EMPTY = Verdict(False, "the answer is empty")
_REASONING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
)


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
    return judge(instruction(instruction_id, kwargs), response, pack, edition, prompt)


def judge(asked: Instruction, response: str, pack: Pack, edition: str, prompt: str) -> Verdict:
    """check() for an Instruction that has been read already."""
    if edition not in EDITIONS:
        raise PackError("edition", f"{edition!r} is not known.", f"Use one of {EDITIONS}.")
    if not response.strip():
        return EMPTY
    if edition == "original":
        # Keep what the file says (a string where a list belongs), but fill in known relations.
        arguments = {**asked.arguments, **_strings_as_found(asked)}
        return DIALECTS[asked.dialect][asked.id](response, arguments, pack)
    return CORRECTED[asked.id](response, {**asked.arguments, "prompt": prompt}, pack)


def _strings_as_found(asked: Instruction) -> dict[str, Any]:
    names = ("keywords", "forbidden_words")
    return {name: asked.raw_arguments[name] for name in names if name in asked.raw_arguments}


def variants(response: str) -> list[str]:
    """The eight texts of the loose reading, each once."""
    pieces = response.split("\n")
    whole = [
        response,
        "\n".join(pieces[1:]).strip(),
        "\n".join(pieces[:-1]).strip(),
        "\n".join(pieces[1:-1]).strip(),
    ]
    return list(dict.fromkeys([*whole, *(text.replace("*", "") for text in whole)]))


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
    position = 0
    if (end := text.find(closing)) >= 0 and not 0 <= text.find(opening) < end:
        position = end + len(closing)
    while (start := text.find(opening, position)) >= 0:
        kept.append(text[position:start])
        end = text.find(closing, start)
        if end < 0:
            # An answer that speaks of the tag is left as it is; one that begins with it was cut.
            return "".join([*kept, text[start:]] if any(map(str.strip, kept)) else "")
        position = end + len(closing)
    return "".join([*kept, text[position:]]).lstrip()


def is_unfinished(text: str, think_end_token: str | None = None) -> bool:
    """Was the answer cut while it was still reasoning?"""
    if think_end_token and think_end_token in text:
        return False
    start = text.lstrip()
    return any(start.startswith(opening) and closing not in start for opening, closing in _REASONING)


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
        {"key", "instruction_ids", "strict": [bool], "loose": [bool], "reasons": [str]}; the
        lists are empty where no instruction is left to score.
    """
    asked = document if isinstance(document, Document) else from_row(document)
    pack = load_pack(language)
    if edition == "corrected" or think_end_token:
        response = strip_reasoning(response, think_end_token)
    scored = asked.scored(include_response_language)
    texts = variants(response)
    strict = [judge(i, response, pack, edition, asked.prompt) for i in scored]
    loose = [
        verdict.followed or any(judge(i, t, pack, edition, asked.prompt) for t in texts[1:])
        for i, verdict in zip(scored, strict, strict=True)
    ]
    return {
        "key": asked.key,
        "instruction_ids": [i.id for i in scored],
        "strict": [verdict.followed for verdict in strict],
        "loose": loose,
        "reasons": [verdict.reason for verdict in strict],
    }
