"""What vLLM reports of itself is kept out of the way, so that our lines and lm_eval's table can be read.

Errors and warnings still come, those of transformers too, because a warning may be about a number. IBERIAN_VERBOSE=1, or
`-v` of a command of `iberian`, shows everything, and whoever has set VLLM_LOGGING_LEVEL gets what it says.
"""

from __future__ import annotations

import logging
import os

VERBOSE = "IBERIAN_VERBOSE"
# vLLM's own variable, which the processes of its engine inherit.
LEVEL = "VLLM_LOGGING_LEVEL"


def is_verbose() -> bool:
    """Whether what libraries log is to be shown."""
    return os.environ.get(VERBOSE, "") not in ("", "0")


def quieten() -> None:
    """Called before vLLM is loaded, and of no harm later."""
    if not is_verbose() and os.environ.setdefault(LEVEL, "WARNING") == "WARNING":
        logging.getLogger("vllm").setLevel(logging.WARNING)
