"""A merge is made once for all ranks of an engine: same bytes, each source read once, and no rank waits for a lost one.

The ranks run in processes of their own (`ranks.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from merge_hooks.engines import sharing
from merge_hooks.engines.proof import take
from merge_hooks.engines.sharing import Ranks, Shared, Turns
from merge_hooks.engines.weights_digest import Digest, digest_of, digest_of_described
from merge_hooks.errors import EngineError, SourceError
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import Stream, open_stream
from tests.conftest import linear, task_arithmetic
from tests.merge_hooks import ranks


@pytest.fixture(scope="module")
def run() -> Iterator[Any]:
    with ranks.Ranks() as started:
        yield started.run


def stream_of(recipe: Any) -> Stream:
    return open_stream(resolve(read_recipe(recipe)))


def read_by(recipe: Any) -> int:
    """Bytes of all tensors that a merge reads."""
    stream = stream_of(recipe)
    return sum(
        stream.resolved.sources[key].read(name).nbytes for output in stream.plan for key, name in output.held.items()
    )


def test_turns_are_even_by_bytes_and_the_same_everywhere() -> None:
    turns, given = Turns(3), [0, 0, 0]
    sizes = [70, 10, 10, 64, 5, 5, 5, 64, 8, 8] * 20
    for size in sizes:
        given[turns.take(size)] += size
    assert max(given) - min(given) <= max(sizes)


def test_rounds_hold_every_tensor_once_in_order_with_one_for_each_rank(
    llama: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "ROUND_BYTES", 1)
    stream = stream_of(linear(llama))
    rounds = sharing._rounds(stream, set(stream.names()), 4)
    assert [name for one in rounds for name, _ in one] == stream.names()
    assert {len(one) for one in rounds[:-1]} == {4} and len(rounds) > 2
    assert {owner for one in rounds for _, owner in one} == {0, 1, 2, 3}


def test_one_rank_takes_the_plain_stream(llama: dict[str, Path]) -> None:
    stream = stream_of(linear(llama))
    with Shared() as one:
        assert digest_of(one.tensors(stream, set(stream.names()), None)) == digest_of(stream)


def test_a_digest_of_described_tensors_is_the_digest() -> None:
    weights = [("a", torch.arange(6.0)), ("b", torch.ones(2, 3, dtype=torch.bfloat16))]
    with Digest() as digest:
        assert digest_of_described(digest.describe(*pair) for pair in weights) == digest_of(weights)
        assert digest_of_described(digest.describe(*pair) for pair in reversed(weights)) != digest_of(weights)


def test_stages_must_agree_on_a_tensor_that_both_have() -> None:
    class Two(Ranks):
        def exchange(self, item: Any) -> list[Any]:
            return [(None, {"tied": b"1", "first": b"2"}), (None, {"tied": self.members[0].to_bytes(), "last": b"3"})]

    assert Shared(stages=Two(members=(ord("1"), 0))).finish_stages({}) == {"tied": b"1", "first": b"2", "last": b"3"}
    with pytest.raises(sharing.EngineError, match="different tensors"):
        Shared(stages=Two(members=(ord("9"), 0))).finish_stages({})


@pytest.mark.slow
@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize(("size", "stages"), [(2, 1), (4, 1), (4, 2), (2, 2)])
def test_ranks_take_in_the_bytes_of_one(
    size: int, stages: int, maps: bool, llama: Any, tmp_path: Path, run: Any
) -> None:
    """Mapped and broadcast, also where a loader writes into what it is given."""
    recipes = [linear(llama), task_arithmetic(llama), task_arithmetic(llama) | {"merge_method": "dare_linear"}]
    found = run(tmp_path, size, recipes, stages=stages, maps=maps, writes=True)
    for number, recipe in enumerate(recipes):
        weights = dict(stream_of(recipe))
        swaps = [one["swaps"][number] for one in found]
        assert {swap["digest"] for swap in swaps} == {digest_of(weights.items())}
        prints = {name: print_ for swap in swaps for name, print_ in swap["prints"].items()}
        assert prints.keys() == weights.keys()
        for name, tensor in weights.items():
            own = take(tensor)
            total = own.value.float().sum() if own.signs is None else own.signs.sum()  # type: ignore[union-attr]
            assert prints[name] == pytest.approx(float(total), rel=1e-4, abs=1e-4)
        assert sum(swap["read"] for swap in swaps) == read_by(recipe)  # by all ranks together


@pytest.mark.slow
def test_residents_hold_each_tensor_on_one_rank(llama: Any, tmp_path: Path, run: Any) -> None:
    recipe = task_arithmetic(llama)
    found = run(tmp_path, 4, [recipe, recipe], resident="memory")
    held = [one["resident"] for one in found]
    assert held == [one["swaps"][0]["read"] for one in found] and min(held) > 0
    assert [sum(one["swaps"][number]["read"] for one in found) for number in (0, 1)] == [read_by(recipe), 0]


@pytest.mark.slow
@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize(
    ("how", "after", "words"),
    [("raise", 5, "EngineError: rank 1 stopped during a merge: ValueError: the engine cannot load it"),
     ("open", 0, "SourceError: this rank's files are not to be had")],
)  # fmt: skip
def test_an_error_on_one_rank_reaches_all_with_the_same_words(
    how: str, after: int, words: str, maps: bool, llama: Any, tmp_path: Path, run: Any
) -> None:
    found = run(tmp_path, 4, [linear(llama)], stages=2, maps=maps, longest=200, timeout=600,
                fails={"rank": 1, "after": after, "how": how})  # fmt: skip
    own = "ValueError: the engine cannot load it" if how == "raise" else words
    assert [one["error"] for one in found] == [words, own, words, words]


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_others_with_a_message(llama: Any, tmp_path: Path, run: Any) -> None:
    found = run(tmp_path, 4, [linear(llama)], longest=200, timeout=600, fails={"rank": 2, "after": 5, "how": "kill"})
    assert found[2] == {"status": -9}
    for one in (found[0], found[1], found[3]):
        assert one["error"].startswith("EngineError") and "one has died or does not answer" in one["error"]


def test_memory_of_a_rank_that_has_died_is_said_to_be_lost() -> None:
    """It can die after it has told where its tensors lie, and before they are mapped."""
    with pytest.raises(EngineError, match="one has died or does not answer"), Ranks().needing_the_others():
        sharing._mapped(f"/proc/{os.getpid()}/fd/99999", 8)


@pytest.mark.slow
def test_nan_in_a_source_is_the_same_refusal_on_all_ranks(llama: Any, tmp_path: Path, run: Any) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(llama["basque"], broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    recipe = linear({**llama, "basque": broken})
    with pytest.raises(SourceError) as refused:
        dict(stream_of(recipe))
    found = run(tmp_path / "ranks", 3, [recipe], longest=200)
    assert {one["error"] for one in found} == {f"SourceError: {refused.value}"}
