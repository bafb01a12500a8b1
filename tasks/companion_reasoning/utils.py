"""mCSQA: CommonsenseQA's layout, turned into lettered options and the number of the right one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lm_eval_iberian.errors import DocumentsError
from lm_eval_iberian.task import DrawnTask


class ReasoningTask(DrawnTask):
    """mCSQA in one language. Documents get `options` (a line each), `letters` and `answer` (a number)."""

    def candidates(self, data: Any, asked: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
        """Every question. Raises DocumentsError where some have no answer."""
        rows = data.to_list()
        answered = [is_answered(row) for row in rows]
        if not all(answered):
            raise DocumentsError(
                f"{self.config.dataset_path} ({self.config.dataset_name}): {answered.count(False)} of {len(rows)} "
                f"questions have no answerKey among their labels (row {answered.index(False)}: "
                f"{rows[answered.index(False)]}). "
                "Its test split has answers since August 2024: read a later revision."
            )
        return list(enumerate(map(with_letters, rows)))

    def fewshot_docs(self) -> Iterable[dict[str, Any]]:
        """Questions of the training split that have an answer."""
        return [with_letters(row) for row in self.dataset["train"].to_list() if is_answered(row)]

    def key(self, document: dict[str, Any]) -> str:
        """The question and its options."""
        return f"{document['question']}\n{document['options']}"


def is_answered(row: dict[str, Any]) -> bool:
    """Whether the right answer is one of the options."""
    return row["answerKey"] in row["choices"]["label"]


def with_letters(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its options as lettered lines, its letters, and the number of the right one."""
    labels, texts = row["choices"]["label"], row["choices"]["text"]
    options = "\n".join(f"{label}. {text}" for label, text in zip(labels, texts, strict=True))
    return {**row, "options": options, "letters": list(labels), "answer": labels.index(row["answerKey"])}
