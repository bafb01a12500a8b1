"""MultiLingualSentiment: one language of it, its three labels in that language's words, and what is made of answers."""

from __future__ import annotations

from typing import Any

from lm_eval_iberian.benchmarks.languages import language_names
from lm_eval_iberian.errors import DocumentsError
from lm_eval_iberian.metrics.labels import UNREADABLE, label_in
from lm_eval_iberian.metrics.labels import macro_f1 as macro_f1
from lm_eval_iberian.metrics.labels import macro_precision as macro_precision
from lm_eval_iberian.metrics.labels import macro_recall as macro_recall
from lm_eval_iberian.task import DrawnTask

LABELS = ("positive", "neutral", "negative")
# The words of LABELS that are offered, and how an answer may name them (small letters; English is always read).
WORDS = {
    "en": ("positive", "neutral", "negative"),
    "de": ("positiv", "neutral", "negativ"),
    "fr": ("positif", "neutre", "négatif"),
    "ja": ("ポジティブ", "ニュートラル", "ネガティブ"),
    "zh": ("正面", "中性", "负面"),
}
ENGLISH = (r"\bpositive\b", r"\bneutral\b", r"\bnegative\b")
READ = {
    "en": ENGLISH,
    "de": (r"\bpositiv(e[mnrs]?)?\b", r"\bneutral(e[mnrs]?)?\b", r"\bnegativ(e[mnrs]?)?\b"),
    "fr": (r"\bpositi(fs?|ves?)\b", r"\bneutres?\b", r"\bn[ée]gati(fs?|ves?)\b"),
    "ja": (r"ポジティブ|肯定的|好意的", r"ニュートラル|中立", r"ネガティブ|否定的"),
    "zh": (r"正面|积极|正向", r"中性|中立", r"负面|消极|负向"),
}


class SentimentTask(DrawnTask):
    """One language, which the YAML names: `dataset_kwargs: {language: de, draw: 500, seed: 0}`.

    Documents get `labels` (LABELS in the language's words), `answer` (the right one's number) and `word`.
    """

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **options: Any) -> None:
        """Read and draw. Raises DocumentsError also where no row is of the language."""
        self.language = str((dataset_kwargs or {})["language"])
        super().download(dataset_kwargs, **options)

    def candidates(self, data: Any, asked: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
        """The rows of the language. Raises DocumentsError where there are none, or a label is none of the three."""
        names = {self.language, language_names()[self.language].lower()}
        languages = [str(one).strip().lower() for one in data["language"][:]]
        places = [place for place, language in enumerate(languages) if language in names]
        if not places:
            raise DocumentsError(
                f"{self.config.dataset_path}: no row of the language {self.language}; its column `language` holds "
                f"{', '.join(sorted(set(languages)))}."
            )
        rows = data.select(places).to_list()
        return [(place, with_answer(row, self.language)) for place, row in zip(places, rows, strict=True)]

    def key(self, document: dict[str, Any]) -> str:
        """The text."""
        return str(document["text"])


def by_likelihood(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, Any]:
    """Right and predicted label; predicted is the likeliest, the first of equal ones, as lm_eval has it."""
    values = [value for value, _ in results]
    return scored(doc, max(range(len(values)), key=values.__getitem__))


def in_words(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Right and predicted label; predicted is what the answer names, in the language or in English."""
    pairs = zip(READ[doc["language"]], ENGLISH, strict=True)
    said = label_in(results[0], {label: f"{own}|{english}" for label, (own, english) in enumerate(pairs)})
    return {**scored(doc, said), "unreadable": float(said == UNREADABLE)}


def scored(doc: dict[str, Any], said: int) -> dict[str, Any]:
    """What is aggregated: pairs of labels for the macro averages, 1 or 0 for accuracy."""
    pair = (doc["answer"], said)
    return {"macro_f1": pair, "macro_precision": pair, "macro_recall": pair, "acc": float(said == doc["answer"])}


def with_answer(row: dict[str, Any], language: str) -> dict[str, Any]:
    """A row with the number of its label and its word. Raises DocumentsError for a label that is none of LABELS."""
    label = str(row["label"]).strip().lower()
    if label not in LABELS:
        raise DocumentsError(f"MultiLingualSentiment: the label {row['label']!r} is none of {', '.join(LABELS)}.")
    number = LABELS.index(label)
    return {
        **row,
        "language": language,
        "labels": list(WORDS[language]),
        "answer": number,
        "word": WORDS[language][number],
    }
