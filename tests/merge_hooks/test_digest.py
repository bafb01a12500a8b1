"""The checksum of a stream: every byte, name, dtype and shape counts, and the order; how it is cut up does not."""

from __future__ import annotations

import pytest
import torch
import xxhash

from merge_hooks.engines import weights_digest as digest
from merge_hooks.engines.weights_digest import Digest, digest_of


def stream() -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [("a", torch.randn(7, 3, generator=generator)), ("b", torch.randn(5, generator=generator).bfloat16())]


def test_it_is_xxh3_of_names_forms_and_pieces() -> None:
    state = xxhash.xxh3_128()
    for name, form, tensor in zip("ab", ("torch.float32\0(7, 3)", "torch.bfloat16\0(5,)"), stream(), strict=True):
        content = tensor[1].contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        state.update(f"{name}\0{form}\0".encode() + xxhash.xxh3_128_digest(content))
    assert digest_of(stream()) == state.hexdigest()


def test_everything_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 8 bytes, the last one not whole: the last byte counts like the first."""
    monkeypatch.setattr(digest, "PIECE", 8)
    (_, one), (_, two) = stream()
    first, last = one.clone(), one.clone()
    first.view(-1).view(torch.uint8)[0] ^= 1
    last.view(-1).view(torch.uint8)[-1] ^= 1
    streams = [
        [("a", one), ("b", two)], [("a", first), ("b", two)], [("a", last), ("b", two)], [("b", one), ("a", two)],
        [("a", one.T), ("b", two)], [("a", one.view(3, 7)), ("b", two)], [("a", one), ("b", two.view(torch.float16))],
        [("b", two), ("a", one)], [("a", one)],
    ]  # fmt: skip
    assert len({digest_of(one) for one in streams}) == len(streams)
    with Digest() as taken:
        sums = [
            taken.checksum(tensor) for tensor in (one, first, last, one.T, one.view(3, 7), two, two.view(torch.float16))
        ]
        assert len(set(sums)) == len(sums)
        assert taken.add("a", one) == taken.checksum(one) and (taken.tensors, taken.bytes) == (1, one.nbytes)
