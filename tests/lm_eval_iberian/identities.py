"""A small measurement of which everything can be changed: two merges' parents, tasks whose judge calls a helper."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lm_eval_iberian.identity.identity import Identity
from lm_eval_iberian.sweep import kept_tasks
from lm_eval_iberian.sweep.plan import make_plan
from lm_eval_iberian.sweep.spec import check_sweep
from tests.lm_eval_iberian.sweep.local_tasks import write_tasks
from tests.lm_eval_iberian.sweep.runner import ONLY_OURS

UTILS = """\
import beside_local


def judge(doc, results):
    return {"acc": beside_local.verdict(doc, results)}
"""
HELPER = """\
def verdict(doc, results):
    return float(max(range(len(results)), key=lambda place: results[place][0]) == doc["answer"])
"""


class Measurement:
    """What `sweep.yml` and the files that it names would hold.

    Args:
        folder: where all files of it are written.
        family: base, instruct and basque; `basque` and `instruct` are copied, so that they can be changed.
    """

    def __init__(self, folder: Path, family: Mapping[str, Path]) -> None:
        self.models = {name: Path(shutil.copytree(family[name], folder / name)) for name in ("basque", "instruct")}
        self.tasks = write_tasks(folder / "tasks", 6)
        (self.tasks / "utils.py").write_text(UTILS)
        (self.tasks / "beside_local.py").write_text(HELPER)
        choice = self.tasks / "choice.yaml"
        choice.write_text(choice.read_text() + "process_results: !function utils.judge\n")
        models = [{"model": str(path), "parameters": {"weight": 1.0}} for path in self.models.values()]
        self.data: dict[str, Any] = {
            "tasks": ["local_choice", "local_words"], "include_path": str(self.tasks), "limit": 4, "num_fewshot": 1,
            "model_args": {"backend": "hf", "dtype": "float32", "device": "cpu"}, "parents": False,
            "recipes": {"point": {"merge_method": "linear", "models": models, "dtype": "float32"}},
        }  # fmt: skip

    def change(self, file: str, change: Callable[[Any], Any]) -> None:
        """Change a JSON file of `basque`, which the tokenizer and the generation config come from."""
        path = self.models["basque"] / file
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(change(content)))

    def plan(self, backend: str | None = None) -> Any:
        """The plan, all of it read anew."""
        data = self.data if backend is None else {**self.data, "model_args": {"backend": backend, "dtype": "float32"}}
        with patch.object(kept_tasks, "TaskManager", ONLY_OURS):
            return make_plan(check_sweep(data, "test"))

    def identity(self) -> Identity:
        """Of its one evaluation."""
        plan = self.plan()
        assert not plan.points[0].problem, plan.points[0].problem
        return plan.identity(plan.points[0], plan.points[0].point.evaluations[0])
