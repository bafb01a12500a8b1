"""Texts from elsewhere, made safe to show: in terminals, in logs, in tables, in job scripts.

    seen("weight\\x1b[2J")          # what would not be seen, or would be obeyed, is shown as a replacement character
    one_line("a name\\nof two")     # and no line ends
    json_text(["\\u202e"])          # JSON that says the same, in characters that every terminal shows
    value_of("0.5")                 # and read as lm_eval's command line reads it: a number

A name of a model, a key of somebody's YAML, an answer: whoever wrote it must not move the cursor, turn the direction of
what follows, or begin a line of a script.
"""

from __future__ import annotations

import json
import re
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters but for line feed and tab; marks that turn the direction of what follows; separators of lines that
# no terminal shows as such; characters of no width (but those of emoji and of Arabic script, U+200C and U+200D); tags;
# halves of pairs.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe"
    "\uffff\U000e0000-\U000e007f]|[\ud800-\udfff]"
)


def seen(text: str) -> str:
    """A text with a replacement character for each that would not be seen, or would be obeyed; lines stay lines."""
    return UNSEEN.sub(REPLACEMENT, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same on one line."""
    return seen(" ".join(text.split()))


def shortened(text: str, most: int) -> str:
    """The same, without what comes after so many characters: files of others may hold a token of megabytes."""
    return text if len(text) <= most else f"{text[:most]} ... ({len(text):,} characters)"


def json_text(value: Any, **options: Any) -> str:
    """JSON with its letters as they are, and with an escape for each character that would not be seen."""
    return UNSEEN.sub(_escaped, json.dumps(value, ensure_ascii=False, **options))


def value_of(text: str) -> Any:
    """lm_eval's reading of a value on the command line (utils.handle_arg_string): true, false, numbers, else text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1]
