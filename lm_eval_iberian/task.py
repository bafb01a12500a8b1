"""The class of our tasks: lm_eval's ConfigurableTask, whose documents come from `lm_eval_iberian.documents`.

A task is a YAML in tasks/ that says `class: !function lm_eval_iberian.task.DocumentTask` and is otherwise written
as any lm_eval task: `dataset_path`, `dataset_name`, `doc_to_text`, ...
"""

from __future__ import annotations

from typing import Any

from lm_eval.api.task import ConfigurableTask

from lm_eval_iberian import documents


class DocumentTask(ConfigurableTask):
    """A task that reads a mirror folder, the embedded samples or the Hub, as IBERIAN_DATA says."""

    def __init__(self, config: dict[str, Any] | None = None, **arguments: Any) -> None:
        # `class` brought lm_eval here; TaskConfig does not know it.
        config = {key: value for key, value in (config or {}).items() if key != "class"}
        super().__init__(config=config, **arguments)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """lm_eval's hook for getting the documents. Raises DocumentsError where they are not to be had."""
        self.dataset = documents.load(self.config.dataset_path, self.config.dataset_name, self.splits())
        self.say_where_from()

    def say_where_from(self) -> None:
        """Write into the task's metadata, and so into the results, that these are samples: no score of anything."""
        if documents.is_samples():
            self.config.metadata = {**(self.config.metadata or {}), "documents": "samples"}

    def splits(self) -> list[str]:
        """The splits that this task reads."""
        config = self.config
        named = (config.test_split or config.validation_split, config.fewshot_split)
        return list(dict.fromkeys(split for split in named if split))
