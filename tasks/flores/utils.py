"""FLORES+ keeps one file a language: the class that joins two of them on `id`."""

from __future__ import annotations

from typing import Any

from lm_eval_iberian import documents
from lm_eval_iberian.documents import DocumentsError
from lm_eval_iberian.task import DocumentTask


class FloresTask(DocumentTask):
    """A direction. Its YAML names source and target under `dataset_kwargs: {languages: [spa_Latn, eus_Latn]}`.

    Documents have `id` and, as in lm_eval's FLORES tasks, `sentence_<language>` for both languages.
    """

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read both languages and join them. Raises DocumentsError when their ids differ."""
        from datasets import Dataset

        languages = (dataset_kwargs or {})["languages"]
        path, splits = str(self.config.dataset_path), self.splits()
        loaded = {language: documents.load(path, language, splits) for language in languages}
        self.dataset = {split: Dataset.from_list(_join(loaded, split, path)) for split in splits}
        self.say_where_from()
        self.config.metadata = {**(self.config.metadata or {}), "signatures": signatures()}


def signatures() -> dict[str, str]:
    """sacreBLEU's signatures of the metrics as lm_eval calls them (lm_eval/api/metrics.py: all defaults)."""
    from sacrebleu.metrics import BLEU, CHRF

    metrics = {"bleu": BLEU(), "chrf": CHRF(), "chrf++": CHRF(word_order=2)}
    for metric in metrics.values():
        metric.corpus_score(["a"], [["a"]])  # the number of references is known only after a score
    return {name: str(metric.get_signature()) for name, metric in metrics.items()}


def _join(loaded: dict[str, Any], split: str, path: str) -> list[dict[str, Any]]:
    """Rows of both languages with the same id, in the order of the first."""
    texts = {
        language: dict(zip(data[split]["id"], data[split]["text"], strict=True))
        for language, data in loaded.items()
    }
    (first, ids), *others = ((language, list(rows)) for language, rows in texts.items())
    for language, other in others:
        if set(other) != set(ids):
            raise DocumentsError(
                f"{path}, split {split}: {first} and {language} do not have the same ids "
                f"({len(set(ids) ^ set(other))} differ). Fetch both again, of one revision."
            )
    return [
        {"id": id, **{f"sentence_{language}": rows[id] for language, rows in texts.items()}} for id in ids
    ]
