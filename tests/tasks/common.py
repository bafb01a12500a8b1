"""Building tasks and their requests without a model: ours, and lm_eval's own from the same documents."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import TaskIndex

from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.sweep.kept_tasks import our_tasks
from tests.kept_index import build_from_kept

SEED = 1234
# What the Hub gives where lm_eval's tasks name no configuration.
DEFAULT_CONFIGS = {
    "proxectonos/xstorycloze_gl": "gl",
    "proxectonos/openbookqa_gl": "openbookqa_gl",
    "projecte-aina/openbookqa_ca": "openbookqa_ca",
}


@functools.cache
def manager() -> TaskManager:
    """One index of all tasks, ours among them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskIndex, "build", staticmethod(build_from_kept()))
        return TaskManager()


ours = functools.cache(our_tasks)


def build(name: str) -> Any:
    """A task, ready to build requests."""
    task = (ours() if name in ours().all_subtasks else manager()).load([name])["tasks"][name]
    task.set_fewshot_seed(SEED)
    return task


def requests(task: Any, shots: int | None = None, **options: Any) -> list[tuple[Any, ...]]:
    """What the task asks of a model: arguments of every request, and the right answer."""
    if shots is not None:
        task.set_config(key="num_fewshot", value=shots)
    task.build_all_requests(**options)
    return [(*instance.args, task.doc_to_target(instance.doc)) for instance in task.instances]


def from_samples(path: str, name: str | None = None, **_: Any) -> dict[str, Any]:
    """A `datasets.load_dataset` that reads the samples, for lm_eval's own tasks."""
    if path == "facebook/flores":
        return flores()
    name = name if name != "default" else None
    found = documents.load(path, name or DEFAULT_CONFIGS.get(path))
    if "belebele" in path:  # lm_eval's task breaks on a number, which Proxecto Nós' data set has: ours reads both
        as_text = lambda row: {"correct_answer_num": str(row["correct_answer_num"])}  # noqa: E731
        return {split: data.map(as_text, features=_text(data)) for split, data in found.items()}
    return found


def _text(data: Any) -> Any:
    from datasets import Value

    features = data.features.copy()
    features["correct_answer_num"] = Value("string")
    return features


@functools.cache
def flores() -> dict[str, Any]:
    """facebook/flores as it was: all languages in one row."""
    from datasets import Dataset

    codes = ("eus_Latn", "glg_Latn", "cat_Latn", "spa_Latn", "eng_Latn", "por_Latn")
    loaded = {code: documents.load("openlanguagedata/flores_plus", code) for code in codes}
    return {
        split: Dataset.from_list(
            [
                {f"sentence_{code}": loaded[code][split][row]["text"] for code in codes}
                for row in range(len(loaded["eus_Latn"][split]))
            ]
        )
        for split in ("dev", "devtest")
    }
