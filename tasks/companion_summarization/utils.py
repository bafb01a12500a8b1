"""WikiLingua: sections as documents, ROUGE with a tokenizer for each language, BERTScore where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lm_eval_iberian.errors import DocumentsError
from lm_eval_iberian.metrics import bertscore, rouge
from lm_eval_iberian.task import DrawnTask

# How each language is cut into tokens: at spaces and punctuation, or into characters.
TOKENIZERS = {"en": rouge.OWN, "de": "intl", "fr": "intl", "ja": "char", "zh": "char"}
BERTSCORE = "bertscore"


class SummarizationTask(DrawnTask):
    """WikiLingua in one language, which the YAML names: `dataset_kwargs: {language: de, draw: 500, seed: 0}`."""

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **options: Any) -> None:
        """Read and draw. Raises DocumentsError also for a tokenizer or BERTScore that cannot be had."""
        asked = dataset_kwargs or {}
        self.language = str(asked["language"])
        self.tokenizer = rouge.chosen(TOKENIZERS[self.language])
        self.bertscore = bertscore.wanted()
        super().download(asked, **options)
        self.say(signatures=rouge.signatures(self.tokenizer), settings=self._settings())

    def _settings(self) -> dict[str, str]:
        """What the environment changed."""
        changed = {rouge.VARIABLE: self.tokenizer} if self.tokenizer != TOKENIZERS[self.language] else {}
        return changed | ({bertscore.VARIABLE: self.bertscore} if self.bertscore else {})

    def candidates(self, data: Any, asked: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
        """Every section that has a text and a summary. Its place is "row:section"."""
        where = f"{self.config.dataset_path} ({self.config.dataset_name})"
        found = []
        for row, article in enumerate(data.to_list()):
            for number, section in enumerate(sections(article, f"{where}, row {row}")):
                if section["text"] and section["summary"]:
                    found.append((f"{row}:{number}", {**section, "language": self.language}))
        return found

    def key(self, document: dict[str, Any]) -> str:
        """The text: articles of one address differ in their sections."""
        return str(document["text"])

    def process_results(self, doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
        """ROUGE of one answer; for BERTScore the texts, which are scored together at the end."""
        texts = {BERTSCORE: (doc["summary"], results[0])} if self.bertscore else {}
        return {**super().process_results(doc, results), **texts}

    def aggregation(self) -> dict[str, Callable[..., Any]]:
        """lm_eval's mean, which gives a standard error; BERTScore over all answers."""
        score = partial(bertscore.bertscore, named=self.bertscore, language=self.language)
        return {**super().aggregation(), **({BERTSCORE: score} if self.bertscore else {})}

    def higher_is_better(self) -> dict[str, bool]:
        """More is better."""
        return {**super().higher_is_better(), **({BERTSCORE: True} if self.bertscore else {})}


def by_rouge(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """ROUGE of one answer, 0 to 1."""
    return rouge.rouge(doc["summary"], results[0], rouge.chosen(TOKENIZERS[doc["language"]]))


def sections(row: Mapping[str, Any], where: str) -> list[dict[str, str]]:
    """The sections of an article, as `url`, `text` and `summary`.

    `article` is a struct of lists (a list for each part, an item a section), or a list of structs.

    Raises:
        DocumentsError: it is neither, or lacks document or summary.
    """
    article = row.get("article")
    if isinstance(article, Mapping) and {"document", "summary"} <= set(article):
        pairs = list(zip(article["document"], article["summary"], strict=True))
    elif isinstance(article, list) and all({"document", "summary"} <= set(one) for one in article):
        pairs = [(one["document"], one["summary"]) for one in article]
    else:
        has = sorted(article) if isinstance(article, Mapping) else type(article).__name__
        raise DocumentsError(f"{where}: `article` should hold document and summary for each section, and holds {has}.")
    return [{"url": str(row["url"]), "text": _joined(text), "summary": _joined(summary)} for text, summary in pairs]


def _joined(text: Any) -> str:
    """One line of text, whatever line breaks it came with."""
    return " ".join(str(text or "").split())
