"""What counts as a task's code."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_iberian.identity import task_code
from lm_eval_iberian.identity.task_code import code_of, documents_hash, documents_of, generation_settings
from lm_eval_iberian.sweep.kept_tasks import our_tasks


class Task:
    """As much of a task as is looked at."""

    def __init__(self, folder: Path, **held: Any) -> None:
        self.config = SimpleNamespace(metadata={"config_source": str(folder / "task.yaml")}, **held)


def function(file: Path, source: str = "def asked(doc):\n    return doc\n") -> Any:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    space: dict[str, Any] = {}
    exec(compile(source, str(file), "exec"), space)
    return space["asked"]


@pytest.mark.parametrize(
    "hold", [lambda f: f, lambda f: [{"function": f}], lambda f: partial(f, {}), lambda f: lambda: f]
)
def test_a_function_elsewhere_counts_with_what_it_imports(tmp_path: Path, hold: Callable[[Any], Any]) -> None:
    """In whatever it is wrapped."""
    source = "def asked(doc):\n    from deeper import inner\n    return doc\n"
    task = Task(tmp_path / "task", held=hold(function(tmp_path / "other" / "judge.py", source)))
    (tmp_path / "other" / "deeper").mkdir()
    inner = tmp_path / "other" / "deeper" / "inner.py"
    seen = [code_of(task)]
    for text in ("a = 1\n", "a = 2\n"):
        inner.write_text(text)
        seen.append(code_of(task))
    assert len(set(seen)) == 3


def test_files_beside_the_yaml_count_but_yaml(tmp_path: Path) -> None:
    task, first = Task(tmp_path), None
    for name, counts in {
        "words.txt": True,
        "table.json": True,
        "rows.jsonl": True,
        "other.yaml": False,
        "README.md": False,
    }.items():
        first = code_of(task)
        (tmp_path / name).write_text("x")
        assert (code_of(task) != first) == counts, name


def test_where_it_lies_does_not_count(tmp_path: Path) -> None:
    found = {code_of(Task(tmp_path / name, held=function(tmp_path / name / "utils.py"))) for name in ("a", "b")}
    assert len(found) == 1


def test_a_function_without_a_file_counts(tmp_path: Path) -> None:
    def made(source: str) -> str:
        space: dict[str, Any] = {}
        exec(compile(source, "<notebook>", "exec"), space)
        return code_of(Task(tmp_path, held=space["asked"]))

    assert made("def asked(): return 1") == made("def asked(): return 1") != made("def asked(): return 2")


@pytest.fixture(scope="module")
def ifeval() -> Any:
    os.environ.setdefault("IBERIAN_DATA", "samples")
    return our_tasks().load(["ifeval_eu"])["tasks"]["ifeval_eu"]


@pytest.mark.parametrize("name", ["checks/length.py", "languages/eu.yaml", "lm_eval_support.py"])
def test_the_checks_and_packs_of_ifeval_count(name: str, ifeval: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mended check, or a pack with another word, gives other verdicts."""
    import ifeval_multi

    before, file = code_of(ifeval), Path(str(ifeval_multi.__file__)).parent / name
    real = task_code._hash_of
    monkeypatch.setattr(task_code, "_hash_of", lambda one: "other" if one == file.resolve() else real(one))
    assert code_of(ifeval) != before


def test_our_task_class_counts_and_lm_evals_does_not(ifeval: Any) -> None:
    files, _ = task_code._defined_in(ifeval)
    names = {file.name for file in task_code._closure(files, list(task_code._our_folders()))}
    assert {"task.py", "shots.py", "documents.py", "ifeval_task.py"} <= names
    assert not any("site-packages" in str(file) for file in files)


class Documents(Task):
    """A task of ten documents, with shots from another split or from the same one."""

    def __init__(self, shots: list[Any] | None = None, split: str | None = "train", num_fewshot: int = 2) -> None:
        self.config = SimpleNamespace(num_fewshot=num_fewshot, fewshot_split=split, test_split="test")
        self.eval_docs, self.shots = [{"n": n} for n in range(10)], shots or [{"n": -1}]

    def fewshot_docs(self) -> list[Any]:
        return self.shots

    def doc_iterator(self, limit: int | None = None, samples: list[int] | None = None) -> Any:
        rows = list(enumerate(self.eval_docs))
        return [rows[n] for n in samples] if samples is not None else rows[:limit]


@pytest.mark.parametrize(
    ("total", "limit", "count"),
    [
        (10, None, 10),
        (10, 1, 1),
        (10, 3.0, 3),
        (10, 99, 10),
        (10, 0.25, 3),
        (10, 0.31, 4),
        (10, 0.001, 1),
        (100, 0.07, 8),
    ],
)
def test_a_limit_is_lm_evals(total: int, limit: float | None, count: int) -> None:
    """A share is rounded up, 1 is one document; and 100 * 0.07 is 7.000000000000001."""
    task = Documents()
    task.eval_docs = [{}] * total
    assert documents_of(task, limit) == count


def test_the_hash_is_of_what_is_read() -> None:
    plain = documents_hash(Documents())
    assert documents_hash(Documents(), 10) == documents_hash(Documents(), samples=list(range(10))) == plain
    read = [documents_hash(Documents(), 3), documents_hash(Documents(), 0.4), documents_hash(Documents(), samples=[1, 0, 2]),
            documents_hash(Documents(), samples=[0, 1]), documents_hash(Documents([{"n": -2}]))]  # fmt: skip
    assert len({plain, *read}) == 1 + len(read)
    assert documents_hash(Documents(), 3) == documents_hash(Documents(), samples=[0, 1, 2])


@pytest.mark.parametrize("idle", [{"num_fewshot": 0}, {"split": "test"}, {"split": None}])
def test_shots_count_where_they_come_from_elsewhere(idle: dict[str, Any]) -> None:
    """Those of the evaluated split are in the hash already."""
    assert documents_hash(Documents([{"n": -1}], **idle)) == documents_hash(Documents([{"n": -2}], **idle))


def test_settings_of_tasks_that_make_requests_by_code_of_their_own_are_not_known() -> None:
    """lm_eval's fda, swde and squad_completion ask for 48 tokens in code; their configuration says nothing, which is 256."""
    from lm_eval.api.task import ConfigurableTask

    class Usual(ConfigurableTask):
        def __init__(self) -> None:
            pass

        def get_config(self, key: str) -> Any:
            return {"output_type": "generate_until", "generation_kwargs": {"until": []}}[key]

    class Own(Usual):
        def construct_requests(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    assert generation_settings({"usual": Usual(), "own": Own()}) == {"usual": {"until": []}}
