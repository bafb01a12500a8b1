"""The toy tasks' documents, made on the spot; and their IFEval, scored by the real checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ifeval_multi import lm_eval_support
from lm_eval_iberian.task import DocumentTask
from lm_eval_iberian.toy.documents import ORIGIN, documents


class ToyTask(DocumentTask):
    """A task of the toy world. Its YAML says which: `dataset_kwargs: {kind: pairs, language: eu}`."""

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Make the documents; no file and no network is asked."""
        from datasets import Dataset

        asked = dataset_kwargs or {}
        self.language = str(asked["language"])
        made = documents(str(asked["kind"]), self.language)
        self.dataset = {split: Dataset.from_list([_flat(row) for row in rows]) for split, rows in made.items()}
        self.say(documents=ORIGIN)


class ToyIfevalTask(ToyTask):
    """Instruction following in the toy world, by ifeval_multi."""

    def process_results(self, doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
        """The verdicts on one answer."""
        found = lm_eval_support.process_document(json.loads(doc["row"]), results[0], self.language)
        return {name: value for name, value in found.items() if name in self.aggregation()}

    def aggregation(self) -> dict[str, Callable[..., Any]]:
        """How each metric is averaged."""
        return {name: lm_eval_support.metric_aggregation(name) for name in metric_names()}

    def higher_is_better(self) -> dict[str, bool]:
        """More is better."""
        return dict.fromkeys(metric_names(), True)


def metric_names() -> list[str]:
    """Both levels, strict and loose, of the corrected edition, and each type's own."""
    names = lm_eval_support.metric_names()
    return [name for name in names if name.startswith(("prompt_level", "inst_level", "strict_"))]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {key: json.dumps(value) if isinstance(value, dict) else value for key, value in row.items()}
