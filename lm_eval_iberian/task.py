"""The class of our tasks: lm_eval's ConfigurableTask, whose documents come from `lm_eval_iberian.documents`.

A task is a YAML in tasks/ that says `class: !function lm_eval_iberian.task.DocumentTask` and is otherwise written
as any lm_eval task: `dataset_path`, `dataset_name`, `doc_to_text`, ...
"""

from __future__ import annotations

from typing import Any

from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from lm_eval_iberian import documents
from lm_eval_iberian.shots import CleanShots


class DocumentTask(ConfigurableTask):
    """A task that reads a mirror folder, the embedded samples or the Hub, as IBERIAN_DATA says."""

    def __init__(self, config: dict[str, Any] | None = None, **arguments: Any) -> None:
        # `class` brought lm_eval here; TaskConfig does not know it.
        config = {key: value for key, value in (config or {}).items() if key != "class"}
        super().__init__(config=config, **arguments)
        # lm_eval's sampler is told of the evaluated row where shots come from its split, and also where neither
        # has a name: so are the tasks of lm_eval without a test split, which name no split for their shots.
        leave_out = self.config.test_split in (None, self.fewshot_cfg.split)
        own: ContextSampler = vars(self)["sampler"]
        self.sampler = CleanShots(own, self.words, leave_out, str(self.config.task))

    def download(self, *_: Any, **__: Any) -> None:
        """lm_eval's hook for getting the documents. Raises DocumentsError where they are not to be had."""
        self.dataset = documents.load(self.config.dataset_path, self.config.dataset_name, self.splits())
        self.say(documents=self.dataset.origin, differences=list(self.dataset.differences))

    def say(self, **facts: Any) -> None:
        """Write into the task's metadata, and so into the results, what a reader of the score must know."""
        self.config.metadata = {
            **(self.config.metadata or {}),
            **{key: value for key, value in facts.items() if value},
        }

    def splits(self) -> list[str]:
        """The splits that this task reads."""
        config = self.config
        named = (config.test_split or config.validation_split, config.fewshot_split)
        return list(dict.fromkeys(split for split in named if split))

    def words(self, document: dict[str, Any]) -> str:
        """What a document says: the words of its question and options, in alphabetic order."""
        choices = self.doc_to_choice(document) if self.config.doc_to_choice else []
        return " ".join(sorted(" ".join([str(self.doc_to_text(document)), *map(str, choices)]).lower().split()))

    def fewshot_context(self, doc: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """lm_eval's prompt of a document, with shots that know which document it is."""
        self.sampler.evaluated = doc
        return super().fewshot_context(doc, *arguments, **options)

    def build_all_requests(self, *, tokenizer_name: str = "", **options: Any) -> None:
        """lm_eval's requests. `--cache_requests` keys them by task and tokenizer only: ours by documents, too."""
        fingerprints = "-".join(str(self.dataset[split]._fingerprint) for split in self.splits())
        super().build_all_requests(tokenizer_name=f"{tokenizer_name}-{fingerprints}", **options)
