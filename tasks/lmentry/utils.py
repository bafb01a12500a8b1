"""Multi-LMentry: elementary tasks of one language, some questions of each, answered in words."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lm_eval.api.metrics import mean

from lm_eval_iberian.documents import draws
from lm_eval_iberian.errors import DocumentsError
from lm_eval_iberian.metrics import elementary
from lm_eval_iberian.task import DocumentTask

COUNT = 100
ACCURACY, UNREADABLE = "acc", "unreadable"
# What Basque lacks.
LACKING = {"eu": ("homophones",)}


class ElementaryTask(DocumentTask):
    """All tasks of a language. Its YAML says `dataset_kwargs: {language: eu, draw: 100, seed: 0}`.

    Documents have `task`, `input` and `facts`, the question's metadata as JSON. `draw` is how many of each task are
    scored; the results say which (metadata: drawn).
    """

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read and draw. Raises DocumentsError where a task lacks, or its metadata is not as known."""
        from datasets import Dataset

        asked, split = dataset_kwargs or {}, str(self.config.test_split)
        self.language = str(asked["language"])
        self.tasks = [task for task in elementary.TASKS if task not in LACKING.get(self.language, ())]
        self.dataset = self.read(self.splits())
        self.say_read(self.dataset, self.dataset.origin)
        by_task = self._by_task(self.dataset[split].to_list())
        count, seed = int(asked.get("draw", COUNT)), int(asked.get("seed", draws.SEED))
        drawn = {task: drawn_of(rows, count, seed) for task, rows in by_task.items()}
        self.say(drawn={
            "seed": seed, "of": sum(map(len, by_task.values())),
            "rows": {task: [row["id"] for row in rows] for task, rows in drawn.items()},
        })  # fmt: skip
        self.dataset[split] = Dataset.from_list([self._document(row) for rows in drawn.values() for row in rows])

    def _by_task(self, rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        """Task -> its rows. Others, which are parts of these, are left out."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            found.setdefault(row["task"], []).append(row)
        if lacking := [task for task in self.tasks if task not in found]:
            raise DocumentsError(
                f"{self.config.dataset_path} ({self.config.dataset_name}): no questions of {', '.join(lacking)}; there "
                f"are {', '.join(sorted(found))}."
            )
        return {task: found[task] for task in self.tasks}

    def _document(self, row: dict[str, Any]) -> dict[str, Any]:
        facts = facts_of(row["metadata"])
        if lacking := [name for name in elementary.needed(row["task"]) if name not in facts]:
            raise DocumentsError(
                f"{self.config.dataset_path} ({self.config.dataset_name}): {row['task']}, question {row['id']}: its "
                f"metadata lacks {', '.join(lacking)}; it holds {', '.join(facts) or 'nothing'}."
            )
        return {"task": row["task"], "id": row["id"], "input": row["input"], "facts": json.dumps(facts)}

    def process_results(self, doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
        """Whether an answer is right: for the mean over tasks, and as a figure of its task."""
        return by_rule(doc, results, self.language)

    def aggregation(self) -> dict[str, Callable[..., Any]]:
        """Each task's share of right answers beside what the YAML names."""
        return {**super().aggregation(), **dict.fromkeys(self.tasks, mean)}

    def higher_is_better(self) -> dict[str, bool]:
        """More is better, of each task."""
        return {**super().higher_is_better(), **dict.fromkeys(self.tasks, True)}


def by_rule(doc: dict[str, Any], results: Sequence[str], language: str = "en") -> dict[str, Any]:
    """The verdict on one answer. One that cannot be read is wrong."""
    found = elementary.verdict(doc["task"], json.loads(doc["facts"]), results[0], language)
    right = float(found is True)
    return {ACCURACY: (doc["task"], right), doc["task"]: right, UNREADABLE: float(found is None)}


def mean_over_tasks(items: Sequence[tuple[str, float]]) -> float:
    """The mean of the tasks' own means, however many questions each has."""
    by_task: dict[str, list[float]] = {}
    for task, right in items:
        by_task.setdefault(task, []).append(right)
    return sum(sum(found) / len(found) for found in by_task.values()) / len(by_task)


def drawn_of(rows: Sequence[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """Some rows of one task, drawn by their words."""
    places, _ = draws.draw([row["input"] for row in rows], count, seed, others=0)
    return [rows[place] for place in places]


def facts_of(metadata: str) -> dict[str, Any]:
    """What a text says of a question: JSON, or as Python writes a dict. Empty where it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(metadata)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        return found if isinstance(found, dict) else {}
    return {}
