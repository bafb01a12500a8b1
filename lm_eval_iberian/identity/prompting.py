"""How the prompts of a figure were made, in one word for a table.

    plain       no chat template
    chat        the model's chat template, all shots in one message
    multiturn   the model's chat template, each shot a turn of its own: as the paper's authors ran instruct models
    +sys        and a system prompt
    ?           the results file does not say

A table may hold figures with different prompts (a base model has no template). `odd_ones` says which of them to mark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KEY = (
    "prompt: plain, no chat template; chat, with it, the shots in one message; multiturn, with it, each shot a turn; "
    "+sys, a system prompt; ?, not known."
)
TEMPLATES = "Digits: which template, where there are several."
ODD_KEY = "§ prompted otherwise than the rows of its column without it."
# A chat template that is not known to the letter: of printed figures.
SOME = "some"


@dataclass(frozen=True)
class Prompt:
    """How prompts were made.

    Args:
        template: hash of the chat template; None: none was applied.
        multiturn: each shot was a turn.
        system: hash of the system prompt, or None.
        is_known: whether the file says so.
    """

    template: str | None = None
    multiturn: bool = False
    system: str | None = None
    is_known: bool = True

    @property
    def word(self) -> str:
        """ "plain", "chat+sys", "multiturn", ..."""
        if not self.is_known:
            return "?"
        kind = "plain" if self.template is None else "multiturn" if self.multiturn else "chat"
        return kind + ("+sys" if self.system else "")

    def agrees(self, other: Prompt) -> bool:
        """Whether both make the same prompt of the same document, as far as is known."""
        if SOME in (self.template, other.template):
            return self.word == other.word
        return self == other


PLAIN = Prompt()
PRINTED = Prompt(SOME, multiturn=True)


def of_chat(chat: Mapping[str, Any], is_known: bool = True) -> Prompt:
    """From the section `chat` of an identity (`lm_eval_iberian.identity.identity`)."""
    return Prompt(chat.get("template"), bool(chat.get("multiturn")), chat.get("system"), is_known)


def odd_ones(column: Sequence[Sequence[Prompt]]) -> list[bool]:
    """For each row of a column, whether any of its prompts was made in another way than those of most rows (of the
    first ones, where there are no more of these than of others).

    Args:
        column: the prompts behind each row's figure; none if there is no figure.
    """
    counts = Counter(prompt for prompts in column for prompt in prompts)
    if not counts:
        return [False for _ in column]
    usual = max(counts, key=lambda one: sum(counts[other] for other in counts if one.agrees(other)))
    return [any(not prompt.agrees(usual) for prompt in prompts) for prompts in column]


def shown(prompts: Iterable[Prompt], several: bool) -> str:
    """A row's prompts in a few letters: "multiturn", "plain / chat+sys".

    Args:
        several: whether the table has several chat templates, so that the first digits of their hashes tell which.
    """
    words = dict.fromkeys(
        f"{one.word} {one.template[:4]}" if several and one.template not in (None, SOME) else one.word
        for one in prompts
    )  # fmt: skip
    return " / ".join(words)


def has_several(prompts: Iterable[Prompt]) -> bool:
    """Whether there are several chat templates among them."""
    return len({one.template for one in prompts} - {None, SOME}) > 1
