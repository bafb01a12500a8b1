"""The one exception family of ifeval_multi.

Every message says what is wrong, where (file, line or key) and how to mend it, because the
reader is somebody who writes a language pack or a prompt set, not somebody who reads this code.
"""

from __future__ import annotations

from unicodedata import category

_KEPT = "\n\t\u200c\u200d\u00ad"  # of the characters that are not seen: lines, joiners, soft hyphens


def seen(text: str) -> str:
    """A text that a terminal shows and does not obey: prompts and packs are quoted in messages."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp") and sign not in _KEPT else sign
        for sign in text
    )


class PackError(Exception):
    """Something a person wrote (a pack, a prompt set, a list of answers) cannot be used.

    Args:
        where: the file, and the line or key in it.
        what: what is wrong there, in one sentence.
        fix: what was expected, or how to mend it.
    """

    for_people = True  # shown as one message, never as a traceback (see lm_eval_iberian.plugin)

    def __init__(self, where: str, what: str, fix: str = "") -> None:
        self.where, self.what, self.fix = where, what, fix
        super().__init__(f"{where}: {what}" + (f" {fix}" if fix else ""))

    def __str__(self) -> str:
        return seen(super().__str__())
