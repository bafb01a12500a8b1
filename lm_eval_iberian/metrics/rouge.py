"""ROUGE-1, -2 and -L of summaries in any language: rouge_score's counting over tokens of the language.

    rouge("Die Tür ist grün.", "Eine grüne Tür.", "intl")     # {"rouge1": 0.29, "rouge2": 0.0, "rougeL": 0.29}

rouge_score's own tokenizer keeps a to z and 0 to 9 only: it cuts "grün" in two and sees nothing in Japanese or
Chinese. It is used for English. Other languages are cut by one of sacreBLEU's tokenizers (`intl` at spaces and
punctuation, `char` into characters, ...), lower-cased, and without what holds no letter or digit, as rouge_score does
for English. Which tokenizer it was is part of the signature: ROUGE over characters is not ROUGE over words.

Sources: Lin 2004 (https://aclanthology.org/W04-1013), rouge_score (Google), sacreBLEU's tokenizers (Post 2018).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from lm_eval_iberian.errors import DocumentsError

TYPES = ("rouge1", "rouge2", "rougeL")
# Another tokenizer than the task's own; the results say so.
VARIABLE = "IBERIAN_ROUGE_TOKENIZER"
OWN = "rouge_score"


class Tokens:
    """One of sacreBLEU's tokenizers, as rouge_score calls one. Raises DocumentsError for a name it does not have."""

    def __init__(self, name: str) -> None:
        from sacrebleu.metrics.bleu import BLEU

        known = sorted(BLEU.TOKENIZERS)
        if name not in known:
            raise DocumentsError(f"ROUGE: there is no tokenizer {name!r}. There are: {OWN}, {', '.join(known)}.")
        try:
            self._cut = BLEU(tokenize=name).tokenizer
        except (ImportError, RuntimeError) as error:
            raise DocumentsError(f"ROUGE: the tokenizer {name} needs a package that is not here: {error}") from None

    def tokenize(self, text: str) -> list[str]:
        """Lower-cased tokens that hold a letter or a digit."""
        tokens = self._cut(" ".join(text.lower().split())).split()
        return [token for token in tokens if any(sign.isalnum() for sign in token)]


def rouge(reference: str, answer: str, tokenizer: str) -> dict[str, float]:
    """F-measures of one answer, 0 to 1, by TYPES.

    Args:
        tokenizer: "rouge_score", or one of sacreBLEU's.
    """
    found = _scorer(tokenizer).score(reference, answer)
    return {name: float(found[name].fmeasure) for name in TYPES}


@cache
def _scorer(tokenizer: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(TYPES, use_stemmer=False, tokenizer=None if tokenizer == OWN else Tokens(tokenizer))


def chosen(own: str, environment: Mapping[str, str] = os.environ) -> str:
    """The tokenizer to use: the one that IBERIAN_ROUGE_TOKENIZER names, else the task's own. Raises DocumentsError."""
    name = environment.get(VARIABLE, "").strip() or own
    _scorer(name)
    return name


def signatures(tokenizer: str) -> dict[str, str]:
    """What each number depends on, in sacreBLEU's form."""
    said = (
        f"nrefs:1|measure:f|case:lc|tok:{tokenizer}|punct:no|stem:no|mean:documents"
        f"|rouge_score:{version('rouge_score')}"
    )
    cut = "" if tokenizer == OWN else f"|sacrebleu:{version('sacrebleu')}"
    return dict.fromkeys(TYPES, said + cut)
