"""Code that a model's folder brings: run where `trust_remote_code` says so, and nobody is asked.

transformers takes no word for an answer (`None`) as a reason to ask at the terminal, where "y" runs the code. Here off
means off, everywhere that something is loaded: `trusts` makes a plain yes or no of what was said, and `never_ask` makes
transformers refuse what nobody has allowed, whoever calls it in this process.
"""

from __future__ import annotations

from merge_hooks.errors import EngineError


def trusts(said: object) -> bool:
    """Whether a model may bring code of its own; nothing said is no.

    Raises:
        EngineError: neither true nor false: the text "no" is not false.
    """
    if said is None or isinstance(said, bool):
        return said is True
    raise EngineError(f"trust_remote_code: {said!r}: write true or false, or leave it out.")


def never_ask() -> None:
    """Switch off transformers' question whether to run a folder's code. What would be asked is refused."""
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # how long it would wait for an answer (seconds)
