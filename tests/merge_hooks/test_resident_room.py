"""How much residents take: never more than their share, after the engine, one process at a time; and nothing that grows."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merge_hooks.engines.hf import build_model, swap_into
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.sources import residents as resident
from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.headers import TensorEntry
from merge_hooks.sources.residents import Residents, _bytes_of
from merge_hooks.stream.stream import open_stream
from merge_hooks.stream.tokenizer import choose_tokenizer
from tests.conftest import linear

MB = 1 << 20


class Fake(Source):
    """A source of one tensor of so many bytes, which holds its number."""

    def __init__(self, number: int, size: int, version: int = 0) -> None:
        super().__init__(f"source {number}", Path(f"/nowhere/{number}"))
        self.number, self.size, self.version = number, size, version
        self.entries = self.stored = {"weight": TensorEntry("", "U8", (size // 8,))}  # counted as 8 bytes each

    def state(self) -> Any:
        return (self.key, self.version)

    def read(self, tensor: str) -> torch.Tensor:
        return torch.full((self.size,), self.number * 16 + self.version, dtype=torch.uint8)


def used() -> int:
    return int(psutil.Process().memory_info().rss)


def test_what_is_promised_and_not_yet_filled_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The issue's four of 9.5 GB on 19 GB, in tens of megabytes; what is free is what this process has really taken."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else the block may lie in what earlier tests let go, and nothing is taken
    before = used()
    monkeypatch.setattr(resident, "free_on_host", lambda: 190 * MB - (used() - before))
    residents = Residents("memory")
    residents.begin([Fake(number, 95 * MB) for number in range(4)])
    assert residents.bytes == 95 * MB and used() - before > 90 * MB


def test_many_small_ones_do_not_take_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    residents = Residents("memory")
    monkeypatch.setattr(resident, "free_on_host", lambda: 100 * MB - residents.bytes)
    residents.begin([Fake(number, 4 * MB) for number in range(30)])
    assert residents.bytes == 60 * MB


def test_workers_of_one_host_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    residents = Residents("memory")
    monkeypatch.setattr(resident, "free_on_host", lambda: 100 * MB - residents.bytes)
    residents.begin([Fake(number, MB) for number in range(30)])
    assert residents.bytes == 15 * MB


def _claim(folder: str, answers: Any, start: Any) -> None:
    """In a process of its own: what is free stands in a file, and taking it takes a while."""
    file = Path(folder) / "free"

    def block(size: int, *_: Any) -> torch.Tensor:
        time.sleep(0.3)
        file.write_text(str(int(file.read_text()) - size))
        return torch.empty(size, dtype=torch.uint8)

    tempfile.tempdir = folder
    resident.free_on_host = lambda: int(file.read_text())  # type: ignore[assignment]
    resident._block = block  # type: ignore[assignment]
    start.wait(60)
    holder = Residents("memory")
    holder.begin([Fake(0, 50 * MB)])
    answers.put(holder.bytes)


def test_two_processes_do_not_take_the_same_memory(tmp_path: Path) -> None:
    (tmp_path / "free").write_text(str(90 * MB))
    context = multiprocessing.get_context("fork")
    answers, start = context.Queue(), context.Event()
    processes = [context.Process(target=_claim, args=(str(tmp_path), answers, start)) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    found = sorted(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert found == [0, 50 * MB]


@dataclass
class FakeGpu:
    """A card of 48: torch keeps what is let go until it is asked to empty its cache."""

    free: int
    kept: int = 0


def test_a_gpu_gives_what_the_engine_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of 14 on a card of 48: nothing before the cache is there, one beside it, and none of what torch has cached."""
    gpu, residents = FakeGpu(free=48), Residents("memory")
    residents.policy, residents.device = "gpu", torch.device("cuda")

    def block(size: int, place: str, device: Any) -> torch.Tensor:
        assert place == "gpu"
        gpu.free -= size // MB
        return torch.empty(size, dtype=torch.uint8)

    def give_back(_: Any) -> None:
        gpu.free, gpu.kept = gpu.free + gpu.kept, 0

    monkeypatch.setattr(resident, "free_on_device", lambda _: gpu.free * MB)
    monkeypatch.setattr(resident, "_block", block)
    monkeypatch.setattr(resident, "_give_back", give_back)
    gpu.free = 20  # weights and key-value cache have taken the rest
    residents.begin([Fake(1, 14 * MB), Fake(2, 14 * MB)])
    assert [row["place"] for row in residents.table()] == ["the GPU's memory", "its mapped files"]
    forget = residents.forget
    monkeypatch.setattr(residents, "forget", lambda state: (setattr(gpu, "kept", gpu.kept + 14), forget(state)))
    residents.begin([Fake(3, 14 * MB)])
    assert residents._taken("gpu") == 14 * MB and residents._taken("memory") == 0


def test_where_there_is_no_block_to_be_had_the_next_place_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    residents = Residents("memory")
    residents.policy, residents.device = "auto", torch.device("cuda")
    monkeypatch.setattr(resident, "free_on_device", lambda _: 100 * MB)
    monkeypatch.setattr(resident, "free_on_host", lambda: 100 * MB)

    def block(size: int, place: str, device: Any) -> torch.Tensor:
        if place == "gpu":
            raise torch.OutOfMemoryError("fragmented")
        return torch.empty(size, dtype=torch.uint8)

    monkeypatch.setattr(resident, "_block", block)
    residents.begin([Fake(1, 33 * MB)])  # pinned: 64 MB, of 60 that may be taken
    assert residents.table()[0]["place"] == "its mapped files"
    residents.begin([Fake(2, 30 * MB)])
    assert [row["place"] for row in residents.table()] == ["pinned memory"] and residents.bytes == 32 * MB


def test_a_first_load_keeps_nothing(llama: dict[str, Path]) -> None:
    """transformers makes parameters that take no memory until they are filled: residents come with the first swap."""
    residents = Residents("memory")

    def stream() -> Any:
        return open_stream(resolve(read_recipe(linear(llama))), residents=residents)

    model = build_model(stream())
    assert residents.bytes == 0 and residents.table() == [] and residents.reads == 0
    swap_into(model, stream())
    assert residents.bytes > 0


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


@dataclass
class Plain:
    held: Any


def _of_closure(held: Any) -> Any:
    return lambda: held


@pytest.mark.parametrize(
    "hang",
    [
        lambda held: held, lambda held: Plain(held), Slotted, lambda held: (held,), lambda held: [[held]],
        lambda held: {"a": held}, lambda held: {held}, lambda held: frozenset([held]), lambda held: deque([held]),
        lambda held: Plain(Slotted({"x": [held, (held,)]})), lambda held: partial(print, held), _of_closure,
        lambda held: held[:1], lambda held: [held[:1], held[5:], held.view(2, -1)], lambda held: held.numpy(),
        lambda held: [held, held.numpy()[3:]], lambda held: torch.nn.ParameterList([held]),
    ],
)  # fmt: skip
def test_tensors_count_wherever_they_hang(hang: Any) -> None:
    size = 4 * 1_000_000
    assert size <= _bytes_of(hang(torch.zeros(1_000_000))) < size + 50_000


def test_different_memory_counts_each_and_circles_end() -> None:
    size = 4 * 1_000_000
    first, second = Plain(torch.zeros(1_000_000)), Plain(np.zeros(1_000_000, np.float32)[7:])
    first.other, second.other = second, [first]  # type: ignore[attr-defined]
    assert 2 * size <= _bytes_of([first, second, first]) < 2 * size + 50_000
    assert _bytes_of(torch) < 1000 and _bytes_of(torch.Tensor) < 1000


def test_knots_bases_are_counted_and_the_same_key_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from merge_hooks.methods.knots_basis import Tied

    residents = Residents("memory")
    tied = residents.keep("tied", lambda: Tied(torch.zeros(500, 500), torch.zeros(500), [torch.zeros(500, 500)] * 2))
    assert 2_000_000 < residents._kept_bytes < 2_100_000 and residents.kept("tied") is tied
    before = residents._kept_bytes
    monkeypatch.setattr(residents, "kept", lambda key: None)  # two threads that both found nothing
    residents.keep("tied", lambda: tied)
    assert residents._kept_bytes == before


STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "read", "forget"]), st.integers(0, 4), st.integers(0, 2)), max_size=25
)


@given(steps=STEPS, budget=st.integers(0, 5000))
def test_any_sequence_keeps_the_budget_and_the_bytes(steps: list[tuple[str, int, int]], budget: int) -> None:
    residents, view = Residents("memory", budget=budget), None
    sizes = [256, 512, 1024, 2048, 4096]
    for step, number, version in steps:
        source = Fake(number, sizes[number], version)
        other = Fake((number + 1) % 5, sizes[(number + 1) % 5], version)
        if step == "begin":
            view, sources = residents.begin([source, other]), [source, other]
        elif step == "forget":
            residents.forget(source.state())
        elif view is not None:
            for read in sources:
                assert torch.equal(view.read(read, "weight"), read.read("weight"))
        assert residents.bytes <= budget


def staged(models: dict[str, Path], weight: float) -> str:
    """Two stages, one in the other, tokenizers that are built, and a method of mergekit's own."""
    return f"""
name: inner
merge_method: linear
dtype: float32
parameters: {{normalize: false}}
models: [{{model: {models["basque"]}, parameters: {{weight: {weight}}}}}, {{model: {models["base"]}, parameters: {{weight: 1}}}}]
---
name: both
merge_method: linear
dtype: float32
tokenizer_source: union
models: [{{model: inner, parameters: {{weight: 1}}}}, {{model: {models["instruct"]}, parameters: {{weight: 1}}}}]
---
merge_method: slerp
dtype: float32
base_model: {models["base"]}
tokenizer_source: union
parameters: {{t: 0.4}}
models: [{{model: {models["base"]}}}, {{model: both}}]
"""


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["memory", "mapped"])
def test_nothing_grows(policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mergekit.io.tasks import LoaderCache
    from mergekit.plan import MergePlanner

    from lm_eval_iberian.toy.tiny import build_family

    models = build_family(tmp_path / "models", hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                          num_attention_heads=2, num_key_value_heads=1, head_dim=16)  # fmt: skip
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    loaders, residents, found = dict(LoaderCache.loaders), Residents(policy), []

    def swap(weight: float) -> str:
        stream = open_stream(resolve(read_recipe(staged(models, weight))), residents=residents)
        folder = choose_tokenizer(stream).folder
        for _ in stream:
            pass
        return folder

    def facts() -> list[int]:
        gc.collect()
        mapped = Path("/proc/self/maps").read_text().count(str(tmp_path))
        files = len(list(Path("/proc/self/fd").iterdir()))
        return [len(list((tmp_path / "tmp").iterdir())), mapped, files, len(residents._sources), len(residents._kept),
                residents.bytes, MergePlanner._model_arch.cache_info().currsize]  # fmt: skip

    folders = set()
    for step in range(6):
        folders.add(swap(0.01 * step))
        found.append(facts())
    assert len(folders) == 1 and Path(folders.pop(), "tokenizer.json").is_file()
    assert found[1] == found[-1] and loaders == LoaderCache.loaders
    assert found[-1][0] <= 4 and found[-1][-1] == 0


def test_a_stage_in_a_stage_is_known_again(llama: dict[str, Path]) -> None:
    first, second = (resolve(read_recipe(staged(llama, 0.5))) for _ in range(2))
    assert [source.state() for source in first.sources.values()] == [item.state() for item in second.sources.values()]
    other = resolve(read_recipe(staged(llama, 0.6)))
    assert [source.state() for source in first.sources.values()] != [item.state() for item in other.sources.values()]


@pytest.mark.slow
def test_streams_in_two_threads_leave_each_other_alone(llama: dict[str, Path]) -> None:
    """mergekit's own random method draws from the process's one generator; and its loaders are the process's."""
    models = [
        {"model": str(llama[name]), "parameters": {"weight": 0.5, "density": 0.5}} for name in ("basque", "instruct")
    ]
    recipe = {"merge_method": "della", "base_model": str(llama["base"]), "models": models, "dtype": "float32",
              "parameters": {"epsilon": 0.1}}  # fmt: skip

    def merged() -> dict[str, torch.Tensor]:
        return dict(open_stream(resolve(read_recipe(recipe)), residents=residents))

    residents = Residents("memory")
    expected, found = merged(), []
    threads = [threading.Thread(target=lambda: found.append(merged())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    for other in found:
        assert all(torch.equal(expected[name], tensor) for name, tensor in other.items())
