"""The class of our tasks: lm_eval's ConfigurableTask, whose documents come from `lm_eval_iberian.documents.loader`.

A task is a YAML in tasks/ that says `class: !function lm_eval_iberian.task.DocumentTask`. Otherwise it is written as
any lm_eval task: `dataset_path`, `dataset_name`, `doc_to_text`, ... What was read is written into its metadata, and so
into the results: "documents" (where from, in words), "documents_hash", "documents_revision", "documents_notes",
"differences", "settings" (environment variables that change a score).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm_eval.api.registry import metric_registry, register_metric
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from lm_eval_iberian.documents import draws
from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents.loader import Documents
from lm_eval_iberian.documents.manifests import manifests
from lm_eval_iberian.documents.needs import OTHERS
from lm_eval_iberian.documents.revisions import METADATA_KEY, Wanted, wanted
from lm_eval_iberian.documents.shots import CleanShots
from lm_eval_iberian.errors import DocumentsError


class DocumentTask(ConfigurableTask):
    """A task that reads a mirror folder, the embedded samples or the Hub, as IBERIAN_DATA says."""

    _shots_seed: int | None = None

    def __init__(self, config: dict[str, Any] | None = None, **arguments: Any) -> None:
        # `class` brought lm_eval here; TaskConfig does not know it.
        config = {key: value for key, value in (config or {}).items() if key != "class"}
        if type(self).process_results is not ConfigurableTask.process_results:
            _register_metrics(config)
        super().__init__(config=config, **arguments)
        self.say(documents_hash=documents.hash_of({split: self.dataset[split] for split in self.splits()}))
        # lm_eval's sampler is told of the evaluated row where shots come from its split, and also where neither
        # has a name: so are the tasks of lm_eval without a test split, which name no split for their shots.
        leave_out = self.config.test_split in (None, self.fewshot_cfg.split)
        own: ContextSampler = vars(self)["sampler"]
        self.sampler = CleanShots(own, self.words, leave_out, str(self.config.task))

    def download(self, *_: Any, **__: Any) -> None:
        """lm_eval's hook for getting the documents. Raises DocumentsError if they cannot be had."""
        self.dataset = self.read(self.splits())
        self.say_read(self.dataset, self.dataset.origin)

    def read(self, splits: list[str]) -> Documents:
        """These splits of the data set that the YAML names. Raises DocumentsError if they cannot be had."""
        path, task = str(self.config.dataset_path), str(self.config.task)
        return documents.load(path, self.config.dataset_name, splits, wanted=self.wanted(path), task=task)

    def wanted(self, path: str) -> Wanted:
        """The revision of a data set: named by this run, the environment, the YAML or the suite, in this order."""
        asked = (self.config.metadata or {}).get(METADATA_KEY)
        in_yaml = (self.config.dataset_kwargs or {}).get("revision") if path == self.config.dataset_path else None
        return wanted(path, manifests().get(path), asked, in_yaml)

    def say_read(self, read: Documents, origin: str) -> None:
        """Note what was read."""
        self.say(
            documents=origin, documents_revision=read.revision, documents_notes=list(read.notes),
            differences=list(read.differences),
        )  # fmt: skip

    def say(self, **facts: Any) -> None:
        """Write into the task's metadata, and so into the results, what a reader of the score must know.

        lm_eval puts the model's arguments into the same place. An argument with the name of one of our facts is
        replaced.
        """
        others = {key: value for key, value in (self.config.metadata or {}).items() if key not in facts}
        self.config.metadata = {**others, **{key: value for key, value in facts.items() if value}}

    def splits(self) -> list[str]:
        """The splits that this task reads."""
        config = self.config
        named = (config.test_split or config.validation_split, config.fewshot_split)
        return list(dict.fromkeys(split for split in named if split))

    def words(self, document: dict[str, Any]) -> str:
        """What a document says: the words of its question and options, sorted."""
        choices = self.doc_to_choice(document) if self.config.doc_to_choice else []
        return " ".join(sorted(" ".join([str(self.doc_to_text(document)), *map(str, choices)]).lower().split()))

    def set_fewshot_seed(self, seed: int | None = None) -> None:
        """lm_eval's hook for the seed by which shots are drawn."""
        super().set_fewshot_seed(seed)
        self._shots_seed = seed

    def fewshot_context(self, doc: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """lm_eval's prompt of a document. The shots are drawn by a sampler that knows the document."""
        self.sampler.evaluated = doc
        return super().fewshot_context(doc, *arguments, **options)

    def build_all_requests(self, *, tokenizer_name: str = "", **options: Any) -> None:
        """lm_eval's requests. `--cache_requests` keys them by task and tokenizer; ours also by documents and the shots' seed."""
        self._look_at_targets()
        read = (self.config.metadata or {})["documents_hash"]
        super().build_all_requests(tokenizer_name=f"{tokenizer_name}-{read}-{self._shots_seed}", **options)

    def _look_at_targets(self) -> None:
        """Say how many documents have a right answer that is none of their choices: lm_eval counts these as wrong, and
        stops after all answers where there is none at all.

        Raises:
            DocumentsError: a document has no right answer.
        """
        if self.config.output_type != "multiple_choice" or callable(self.config.process_results):
            return
        wrong = 0
        for number, document in enumerate(self.eval_docs):
            place = self.doc_to_text if self.multiple_input else self.doc_to_target  # as lm_eval scores
            target, choices = place(document), self.doc_to_choice(document)
            if target is None:
                raise DocumentsError(
                    f"{self.config.task}: document {number} of {self.config.dataset_path} has no right answer (its target "
                    "is null). Is this the split whose answers are published?"
                )
            targets = target if isinstance(target, list) else [target]
            wrong += not all(one in choices if isinstance(one, str) else 0 <= one < len(choices) for one in targets)
        if wrong:
            said = list((self.config.metadata or {}).get("differences") or ())
            word = (
                f"{wrong:,} documents count as wrong whatever is answered: their right answer is none of their choices"
            )
            self.say(differences=list(dict.fromkeys([*said, word])))


class DrawnTask(DocumentTask):
    """A task on documents drawn from a large split: see `lm_eval_iberian.documents.draws`.

    Its YAML may say `dataset_kwargs: {draw: 500, seed: 0}`. With `fewshot_split: others` shots come from further
    documents of the same split. The results say which rows were drawn (metadata: drawn).
    """

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read the split and draw. Raises DocumentsError where it cannot be had, or holds nothing to score."""
        from datasets import Dataset

        asked, split = dataset_kwargs or {}, str(self.config.test_split)
        self.dataset = self.read([name for name in self.splits() if name != OTHERS])
        found = self.candidates(self.dataset[split], asked)
        if not found:
            raise DocumentsError(
                f"{self.config.task}: split {split} of {self.config.dataset_path} holds no document of it."
            )
        count, seed = int(asked.get("draw", draws.COUNT)), int(asked.get("seed", draws.SEED))
        own = self.config.fewshot_split == OTHERS
        scored, others = draws.draw([self.key(one) for _, one in found], count, seed, draws.OTHERS if own else 0)
        self.say_read(self.dataset, self.dataset.origin)
        self.say(drawn={"seed": seed, "of": len(found), "rows": [found[place][0] for place in scored]})
        chosen = {split: Dataset.from_list([found[place][1] for place in scored])}
        if own:
            chosen[OTHERS] = Dataset.from_list([found[place][1] for place in others])
        self.dataset.update(chosen)

    def candidates(self, data: Any, asked: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
        """Every document that may be drawn, with its place: its row number, where a row is a document.

        Args:
            data: the split, a datasets.Dataset.
            asked: the YAML's dataset_kwargs.
        """
        return list(enumerate(data.to_list()))

    def key(self, document: dict[str, Any]) -> str:
        """The words by which a document is drawn."""
        raise NotImplementedError


def _register_metrics(config: Mapping[str, Any]) -> None:
    """Tell lm_eval the names of the metrics that a task's class computes.

    It looks for a metric that it does not know on the Hub, at each load of a task, also under HF_HUB_OFFLINE; would run
    what it found there; and logs an error where there is nothing.
    """
    for entry in config.get("metric_list") or ():
        name = entry.get("metric")
        if isinstance(name, str) and name not in metric_registry:
            register_metric(metric=name)(_computed_by_the_class)


def _computed_by_the_class(*_: Any, **__: Any) -> float:
    raise NotImplementedError("this metric is computed by the class of its task (process_results)")
