"""The answer to one question: was this instruction followed, and if not, why not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether an instruction was followed, with a reason that a person can check.

    The reason is filled in both ways: "found 3 bullets, exactly 3 asked" is as useful as
    "found 3 bullets, exactly 5 asked" when somebody doubts a verdict.
    """

    followed: bool
    reason: str

    def __bool__(self) -> bool:
        return self.followed
