"""Fixtures for all tests: tiny checkpoints, recipes, real documents where they are at hand.

Models are made here, seeded, in seconds. No test needs a network; the Hub is switched off.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

# Before anything imports vLLM, transformers or datasets.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import hypothesis
import pytest
import yaml

# libyaml's is ten times as fast.
FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def first_ones(values: Iterable[Any], count: int = 2, others: Any = pytest.mark.slow) -> list[Any]:
    """Cases of a parametrized test of which the first ones are fast enough for `make fast`, and all others are slow."""
    slow = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*value, marks=[others] if place >= count else []) for place, value in enumerate(slow)]


# A busy machine is no failure; and what CI finds, the next run must find again.
hypothesis.settings.register_profile("project", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("project")

ROOT = Path(__file__).resolve().parent.parent
# A test that takes longer (seconds, fixtures included) waits for something that will not come.
LONGEST = 600
SHARED = Path(os.environ.get("IBERIAN_SHARED", ROOT.parent / "shared"))


# Python's collector walks a million objects of torch, transformers and lm_eval, for a second each time: seldom, then.
gc.set_threshold(10_000, 20, 100)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """No test waits for ever: after LONGEST seconds it fails, wherever it waits."""

    def fail(*_: object) -> None:
        pytest.fail(f"{item.nodeid}: still not done after {LONGEST} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LONGEST)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """../shared, with real documents and answers. Tests that need it are skipped where it is not."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A float32 Llama family: base, instruct, basque."""
    from lm_eval_iberian.toy.tiny import build_family

    return build_family(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bfloat16 Qwen3 family with tied embeddings: base, instruct, basque."""
    from lm_eval_iberian.toy.tiny import build_family

    return build_family(tmp_path_factory.mktemp("qwen3"), "qwen3", dtype="bfloat16")


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained toys that have learnt something: base, instruct, basque (lm_eval_iberian/toy). About two minutes.

    IBERIAN_TOYS names a folder that keeps them from one session to the next.
    """
    from lm_eval_iberian.toy.train import build_family

    folder = Path(os.environ.get("IBERIAN_TOYS") or tmp_path_factory.mktemp("toys"))
    return build_family(folder, models=("instruct", "basque"))


def linear(
    family: dict[str, Path], dtype: str = "float32", weights: tuple[float, float] = (1.0, 1.0)
) -> dict[str, Any]:
    """The paper's linear recipe over a tiny family: language model and instruct model, normalised."""
    models = [
        {"model": str(family[name]), "parameters": {"weight": weight}}
        for name, weight in zip(("basque", "instruct"), weights, strict=True)
    ]
    return {"merge_method": "linear", "models": models, "dtype": dtype}


def task_arithmetic(family: dict[str, Path], dtype: str = "bfloat16") -> dict[str, Any]:
    """The paper's task arithmetic over a tiny family."""
    return linear(family, dtype, (1.0, 0.7)) | {"merge_method": "task_arithmetic", "base_model": str(family["base"])}


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe (a mapping, or YAML text) to a file and return its path."""

    def write(recipe: dict[str, Any] | str, name: str = "merge.yml") -> Path:
        path = tmp_path / name
        path.write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def mergekit_merge(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    """Run mergekit itself on a recipe (the code of `mergekit-yaml`) and return the checkpoint it writes."""
    done: dict[str, Path] = {}

    def merge(recipe: dict[str, Any]) -> Path:
        from mergekit.config import MergeConfiguration
        from mergekit.io.tasks import LoaderCache
        from mergekit.merge import MergeOptions, run_merge

        key = json.dumps(recipe, sort_keys=True)
        if key not in done:
            LoaderCache.loaders.clear()
            out = tmp_path_factory.mktemp("mergekit") / "merged"
            run_merge(
                MergeConfiguration.model_validate(recipe), str(out), MergeOptions(quiet=True, copy_tokenizer=True)
            )
            LoaderCache.loaders.clear()
            done[key] = out
        return done[key]

    return merge


@pytest.fixture
def hitz_mirror(shared: Path, tmp_path: Path) -> Path:
    """A mirror folder of the real Basque documents in ../shared/data/hitz."""
    for file in (shared / "data" / "hitz").glob("*.jsonl"):
        name = file.stem
        place = "HiTZ/EusTrivia/default" if name == "eus_trivia" else f"HiTZ/EusExams/{name.removeprefix('eus_exams_')}"
        folder = tmp_path / "mirror" / place
        folder.mkdir(parents=True)
        (folder / "test.jsonl").write_bytes(file.read_bytes())
    return tmp_path / "mirror"


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """lm_eval's loggers as they were: commands that run in this process quieten them."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "lm_eval.api.registry")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Branches of the Hub stand for a commit as long as a process runs; here, a test."""
    for module in ("merge_hooks.sources.hub", "lm_eval_iberian.documents.hub"):
        if module in sys.modules:
            monkeypatch.setattr(f"{module}._COMMITS", {})


@pytest.fixture(autouse=True)
def samples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """IBERIAN_DATA=samples, unless a test says otherwise."""
    monkeypatch.setenv("IBERIAN_DATA", "samples")
    yield
