"""The one exception family of ifeval_multi.

Every message says what is wrong, where (file, line or key) and how to mend it, because the
reader is somebody who writes a language pack or a prompt set, not somebody who reads this code.
"""

from __future__ import annotations


class PackError(Exception):
    """Something a person wrote (a pack, a prompt set, a list of answers) cannot be used.

    Args:
        where: the file, and the line or key in it.
        what: what is wrong there, in one sentence.
        fix: what was expected, or how to mend it.
    """

    def __init__(self, where: str, what: str, fix: str = "") -> None:
        self.where, self.what, self.fix = where, what, fix
        super().__init__(f"{where}: {what}" + (f" {fix}" if fix else ""))
