"""BERTScore of summaries, where it is asked for: it needs a package and a model of its own.

    IBERIAN_BERTSCORE=1        the model that bert_score has for the language
    IBERIAN_BERTSCORE=MODEL    another one, by its Hub id (one that bert_score knows)

Source: Zhang et al. 2020 (https://arxiv.org/abs/1904.09675); https://github.com/Tiiiger/bert_score.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_iberian.errors import DocumentsError

VARIABLE = "IBERIAN_BERTSCORE"
PACKAGE = "bert_score"


def wanted(environment: Mapping[str, str] = os.environ) -> str:
    """What IBERIAN_BERTSCORE names; "" where BERTScore is not asked for.

    Raises:
        DocumentsError: it is asked for, and the package is not installed. Said before anything is generated.
    """
    named = environment.get(VARIABLE, "").strip()
    if named in ("", "0"):
        return ""
    if importlib.util.find_spec(PACKAGE) is None:
        raise DocumentsError(f"{VARIABLE}={named}: BERTScore is an extra: pip install 'lm_eval_iberian[bertscore]'.")
    return named


def bertscore(items: Sequence[tuple[str, str]], named: str, language: str) -> float:
    """The mean F1 of (reference, answer) pairs, 0 to 1.

    Args:
        named: of `wanted`.
        language: its ISO 639-1 code, by which bert_score chooses a model where none is named.
    """
    references, answers = (list(side) for side in zip(*items, strict=True))
    *_, score = _scorer(named, language).score(answers, references)
    return float(score.mean())


def signature(named: str, language: str) -> str:
    """bert_score's own: model, layer, version."""
    return str(_scorer(named, language).hash)


def _scorer(named: str, language: str) -> Any:
    from bert_score import BERTScorer

    return BERTScorer(**({"lang": language} if named == "1" else {"model_type": named}))
