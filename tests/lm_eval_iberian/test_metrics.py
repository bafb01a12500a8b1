"""ROUGE against rouge_score, macro F1 against scikit-learn and by hand, and which answers name a label."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_iberian.errors import DocumentsError
from lm_eval_iberian.metrics import bertscore, labels, rouge

TEXTS = {
    "en": ("Rinse the rice until the water stays clear.", "Rinsing rice; the water must be clear. It's 2 cups!"),
    "de": ("Wasche den Reis, bis das Wasser klar bleibt.", "Den Reis waschen (gründlich), bis WASSER klar ist: 2-mal."),
    "fr": ("Rince le riz jusqu'à ce que l'eau reste claire.", "L'eau doit rester claire : rincez jusqu'à 3,5 fois."),
    "ja": ("水が澄むまで米をとぐ。", "米を、水が澄むまで二回とぎます。"),
    "zh": ("淘米，直到水变清。", "把米淘两遍，直到水清。"),
}  # fmt: skip
# Tokens by hand: small letters; at spaces and punctuation, or characters; nothing without a letter or digit.
TOKENS = {
    ("Fünf Äpfel, je 1,5 kg!", "intl"): ["fünf", "äpfel", "je", "1,5", "kg"],
    ("L'eau — reste: ÇA", "intl"): ["l", "eau", "reste", "ça"],
    ("水が、澄む。", "char"): ["水", "が", "澄", "む"],
    ("スープ 2杯！", "char"): ["ス", "ー", "プ", "2", "杯"],
    ("...", "intl"): [],
}


@pytest.mark.parametrize(("text", "tokenizer"), TOKENS)
def test_tokens(text: str, tokenizer: str) -> None:
    assert rouge.Tokens(tokenizer).tokenize(text) == TOKENS[text, tokenizer]


def test_english_is_rouge_scores_own() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    reference, answer = TEXTS["en"]
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, answer)
    assert rouge.rouge(reference, answer, "rouge_score") == {name: one.fmeasure for name, one in theirs.items()}
    assert len({one.fmeasure for one in theirs.values()} | {one.recall for one in theirs.values()}) > 3


@pytest.mark.parametrize(("language", "tokenizer"), [("de", "intl"), ("fr", "intl"), ("ja", "char"), ("zh", "char")])
def test_other_languages_are_rouge_score_on_their_tokens(language: str, tokenizer: str) -> None:
    """Each token stands for an English word, which rouge_score's own tokenizer leaves whole."""
    from rouge_score.rouge_scorer import RougeScorer

    words: dict[str, str] = {}
    cut = rouge.Tokens(tokenizer)
    spelt = [
        " ".join(words.setdefault(token, f"w{len(words)}") for token in cut.tokenize(text)) for text in TEXTS[language]
    ]
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(*spelt)
    ours = rouge.rouge(*TEXTS[language], tokenizer)
    assert ours == {name: one.fmeasure for name, one in theirs.items()}
    assert 0 < ours["rouge2"] < ours["rouge1"] < 1 and ours["rougeL"] <= ours["rouge1"]


def test_rouge_by_hand() -> None:
    """Five tokens and six, of which four are shared, two pairs of neighbours, and three in order."""
    found = rouge.rouge("eins zwei drei vier fünf", "zwei drei vier eins sechs sieben", "intl")
    assert found["rouge1"] == pytest.approx(2 * 4 / (5 + 6))
    assert found["rouge2"] == pytest.approx(2 * 2 / (4 + 5))
    assert found["rougeL"] == pytest.approx(2 * 3 / (5 + 6))
    assert set(rouge.rouge("eins", "", "intl").values()) == {0.0}


def test_the_signature_names_the_tokenizer() -> None:
    from importlib.metadata import version

    said = rouge.signatures("char")["rougeL"]
    assert said.startswith("nrefs:1|measure:f|case:lc|tok:char|punct:no|stem:no|mean:documents|rouge_score:")
    assert said.endswith(f"|sacrebleu:{version('sacrebleu')}")
    assert "sacrebleu" not in rouge.signatures("rouge_score")["rouge1"]
    assert rouge.chosen("char", {}) == "char"
    assert rouge.chosen("char", {rouge.VARIABLE: "zh"}) == "zh"
    with pytest.raises(DocumentsError, match=r"no tokenizer 'words'. There are: rouge_score, 13a, char"):
        rouge.chosen("char", {rouge.VARIABLE: "words"})


PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)


@settings(max_examples=20)
@given(PAIRS)
def test_macro_averages_are_sklearns(items: list[tuple[int, int]]) -> None:
    from sklearn.metrics import f1_score, precision_score, recall_score

    right, said = zip(*items, strict=True)
    for ours, theirs in ((labels.macro_f1, f1_score), (labels.macro_precision, precision_score),
                         (labels.macro_recall, recall_score)):  # fmt: skip
        assert ours(items) == pytest.approx(theirs(right, said, average="macro", zero_division=0.0))


def test_macro_averages_by_hand() -> None:
    """Label 0: found twice of three, said twice. Label 1: found once of two, said twice. One answer is unreadable."""
    items = [(0, 0), (0, 0), (0, 1), (1, 1), (1, labels.UNREADABLE)]
    assert labels.macro_precision(items) == pytest.approx((2 / 2 + 1 / 2) / 2)
    assert labels.macro_recall(items) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert labels.macro_f1(items) == pytest.approx((4 / 5 + 2 / 4) / 2)


WORDS = {0: r"\bgood\b", 1: r"\bbad\b"}


@pytest.mark.parametrize(
    ("answer", "label"),
    [("Good.", 0), ("\n\n bad, very bad", 1), ("It is not bad but good", -1), ("goodness", -1), ("", -1),
     ("good\nbad", 0), ("I cannot say.\ngood", -1)],
)  # fmt: skip
def test_the_label_that_an_answer_names(answer: str, label: int) -> None:
    assert labels.label_in(answer, WORDS) == label


def test_bertscore_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bertscore.wanted({}) == bertscore.wanted({bertscore.VARIABLE: "0"}) == ""
    monkeypatch.setattr(bertscore.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DocumentsError, match=r"pip install 'lm_eval_iberian\[bertscore\]'"):
        bertscore.wanted({bertscore.VARIABLE: "1"})


def test_bertscore_asks_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package: the model by name or by language, answers before references, the mean of F1."""
    asked: list[object] = []

    class BERTScorer:
        def __init__(self, **model: str) -> None:
            asked.append(model)

        def score(self, answers: list[str], references: list[str]) -> tuple[object, ...]:
            import torch

            asked.append((answers, references))
            return torch.tensor([0.1]), torch.tensor([0.2]), torch.tensor([0.25, 0.75])

    package = ModuleType("bert_score")
    package.BERTScorer = BERTScorer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bert_score", package)
    assert bertscore.bertscore([("r1", "a1"), ("r2", "a2")], "1", "ja") == pytest.approx(0.5)
    bertscore.bertscore([("r", "a")], "org/model", "ja")
    assert asked == [{"lang": "ja"}, (["a1", "a2"], ["r1", "r2"]), {"model_type": "org/model"}, (["a"], ["r"])]
