"""FLORES+ keeps one file a language: the class that joins two of them on `id`."""

from __future__ import annotations

import logging
from typing import Any

from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents.loader import Documents, DocumentsError, NotToBeHad
from lm_eval_iberian.documents.revisions import Wanted
from lm_eval_iberian.task import DocumentTask

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
OTHER_COPY = "mteb/FloresBitextMining"


class FloresTask(DocumentTask):
    """A direction. Its YAML names source and target under `dataset_kwargs: {languages: [spa_Latn, eus_Latn]}`.

    Documents have `id` and, as in lm_eval's FLORES tasks, `sentence_<language>` for both languages.
    """

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read both languages and join them. Raises DocumentsError when they cannot be had, or their ids differ."""
        languages = tuple((dataset_kwargs or {})["languages"])
        path, splits, task = str(self.config.dataset_path), self.splits(), str(self.config.task)
        asked = self.wanted(path)
        try:
            self.dataset = _joined(path, languages, splits, asked, task)
        except NotToBeHad as error:
            if asked.named_by:  # a revision of this one was asked for: another data set is not it
                raise
            self.dataset = _other_copy(languages, splits, self.wanted(OTHER_COPY), error)
        self.say_read(self.dataset, self.dataset.origin)
        self.say(signatures=signatures())


def signatures() -> dict[str, str]:
    """sacreBLEU's signatures of the metrics as lm_eval calls them (lm_eval/api/metrics.py: all defaults)."""
    from sacrebleu.metrics import BLEU, CHRF

    metrics = {"bleu": BLEU(), "chrf": CHRF(), "chrf++": CHRF(word_order=2)}
    for metric in metrics.values():
        metric.corpus_score(["a"], [["a"]])  # the number of references is known only after a score
    return {name: str(metric.get_signature()) for name, metric in metrics.items()}


def _joined(path: str, languages: tuple[str, ...], splits: list[str], asked: Wanted, task: str) -> Documents:
    """FLORES+: both languages joined, where they came from, and what is not as known."""
    from datasets import Dataset

    loaded = {language: documents.load(path, language, splits, wanted=asked, task=task) for language in languages}
    joined = Documents({split: Dataset.from_list(_join(loaded, split, path)) for split in splits})
    parts = loaded.values()
    joined.origin = " and ".join(dict.fromkeys(data.origin for data in parts))
    joined.revision = " and ".join(dict.fromkeys(data.revision for data in parts if data.revision))
    joined.differences = tuple(word for data in parts for word in data.differences)
    joined.notes = tuple(dict.fromkeys(word for data in parts for word in data.notes))
    return joined


def _other_copy(languages: tuple[str, ...], splits: list[str], asked: Wanted, error: NotToBeHad) -> Documents:
    """The ungated copy, one column a language. Raises DocumentsError with both reasons where it will not do either."""
    try:
        found = documents.load(OTHER_COPY, None, splits, dict.fromkeys(languages, "string"), asked)
    except DocumentsError as other:
        raise DocumentsError(f"{error}\nThe ungated copy will not do either. {other}") from None
    LOG.warning("%s\nReading the ungated copy %s instead: the results say so.", error, OTHER_COPY)
    named = {language: f"sentence_{language}" for language in languages}
    for split in splits:
        found[split] = found[split].select_columns(list(languages)).rename_columns(named)
    found.origin = f"{OTHER_COPY}, {found.origin}"
    return found


def _join(loaded: dict[str, Any], split: str, path: str) -> list[dict[str, Any]]:
    """Rows of both languages with the same id, in the order of the first."""
    texts = {
        language: dict(zip(data[split]["id"], data[split]["text"], strict=True)) for language, data in loaded.items()
    }
    (first, ids), *others = ((language, list(rows)) for language, rows in texts.items())
    for language, other in others:
        if set(other) != set(ids):
            raise DocumentsError(
                f"{path}, split {split}: {first} and {language} do not have the same ids "
                f"({len(set(ids) ^ set(other))} differ). Fetch both again, of one revision."
            )
    return [{"id": id, **{f"sentence_{language}": rows[id] for language, rows in texts.items()}} for id in ids]
