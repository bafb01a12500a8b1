"""Does a transformers model hold the merge? Every parameter and buffer is checked where it lies in the model.

    expected = as_made(model)           # buffers as from_pretrained made them; then, as they come, the merge's tensors
    prove(model, expected)              # EngineError names each tensor that is another one

What is expected of a parameter is the checksum of the merge's tensor in the parameter's dtype, taken before it is
copied. `prove` looks at the parameter itself, after everything is done. So nothing that went wrong in between can stay
hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from merge_hooks.engines.hf_quantised import is_packed, scales
from merge_hooks.engines.weights_digest import Digest
from merge_hooks.errors import EngineError

if TYPE_CHECKING:
    import torch

# Elements of a tensor on a GPU that are multiplied and summed at once.
CHUNK = 1 << 20
_MADE: WeakKeyDictionary[Any, Made] = WeakKeyDictionary()


class Made:
    """What a model held beside its weights when it was made: tables of angles, masks, and the numbers beside them.

    Some change while a model reads: dynamic rope grows its table with the longest text. What one merge answers must not
    depend on what another one has read.
    """

    def __init__(self, model: Any) -> None:
        kept: dict[str, torch.Tensor] = {}  # GPT-2's masks are the same in each layer
        self.checksums: dict[str, str] = {}
        self._buffers: dict[str, torch.Tensor] = {}
        with Digest() as digest:
            for name, buffer in model.named_buffers(remove_duplicate=False):
                self.checksums[name] = own = checksum(buffer, buffer, digest)
                self._buffers[name] = kept[own] = kept[own] if own in kept else buffer.detach().clone()
        self._numbers = {
            name: {key: value for key, value in vars(module).items() if isinstance(value, (int, float))}
            for name, module in model.named_modules()
            if any(True for _ in module.buffers(recurse=False))
        }

    def put_back(self, model: Any) -> None:
        """Restore buffers, and the numbers beside them, as they were when the model was made."""
        for name, numbers in self._numbers.items():
            vars(model.get_submodule(name)).update(numbers)
        for name, made in self._buffers.items():
            owner, _, key = name.rpartition(".")
            module = model.get_submodule(owner)
            if module._buffers[key].shape == made.shape and module._buffers[key].dtype == made.dtype:
                module._buffers[key].copy_(made)
            else:
                module._buffers[key] = made.clone()


def as_made(model: Any) -> Made:
    """What the model held when this was first called, which is before its first weights."""
    if model not in _MADE:
        _MADE[model] = Made(model)
    return _MADE[model]


def prove(model: Any, expected: dict[str, str]) -> None:
    """Check that the model holds what is expected, and nothing else.

    Args:
        expected: the checksum of every parameter and buffer, by name; one name of several tied ones is enough.
    Raises:
        EngineError: the model does not hold the merge; the message names every tensor that is wrong.
    """
    ties = getattr(model, "all_tied_weights_keys", {})
    known: dict[int, str] = {}
    wrong, count = [], 0
    with Digest() as digest:
        for name, tensor in held_by(model):
            count += 1
            if id(tensor) not in known:
                known[id(tensor)] = checksum(tensor, tensor, digest)
            wanted = expected.get(name) or expected.get(ties.get(name, name))
            if known[id(tensor)] != wanted:
                wrong.append(name)
    if wrong:
        raise EngineError(
            f"{len(wrong)} of {count} tensors in the model are not those of the merge: {', '.join(wrong[:8])}"
            + (", ..." if len(wrong) > 8 else "")
            + ". It answers nothing until a merge has been loaded whole. If that happens again, report it: nothing of "
            "yours can have caused it but a program that writes to the model's memory."
        )


def held_by(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Everything that a model computes with, by name; tied parameters under each of their names."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield name, parameter
        if is_packed(parameter) and (own := scales(parameter)) is not None:
            yield f"{name}.scales", own
    yield from model.named_buffers(remove_duplicate=False)


def checksum(tensor: torch.Tensor, place: torch.Tensor, digest: Digest) -> str:
    """A checksum of dtype, shape and every byte, computed in the way that suits the place of the tensor.

    Args:
        place: where the tensor lies or will lie.
        digest: its threads do the work on a CPU; it takes nothing in.
    """
    return digest.checksum(tensor.data) if is_hashed(place) else weighted_sum(tensor.data)


def is_hashed(place: torch.Tensor) -> bool:
    """Whether the CPU hashes the bytes of a tensor here. On a GPU they would have to be copied to the host first."""
    return place.device.type == "cpu"


def weighted_sum(tensor: torch.Tensor) -> str:
    """A checksum that a GPU computes at the speed of its memory; a CPU computes the same value.

    Bit patterns, as integers, are multiplied by odd numbers that depend on their places, and summed modulo 2^64. One
    changed element always changes the sum. Two exchanged elements change it, except for one chance in 2^32.
    """
    import torch

    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize]
    flat = tensor.detach().contiguous().view(-1).view(integers)
    sums = [(part * _weights(len(part), part.device)).sum() for part in flat.split(CHUNK)]
    total = 0
    for value in torch.stack(sums).tolist() if sums else ():
        total = (total * 0x9E3779B97F4A7C15 + value) % (1 << 64)
    return f"{tensor.dtype}{tuple(tensor.shape)}{total:016x}"


@cache
def _all_weights(device: torch.device) -> torch.Tensor:

    from merge_hooks.kernels.torch_steps import random_words

    return (random_words(0, 0, CHUNK) | 1).to(device)


def _weights(count: int, device: torch.device) -> torch.Tensor:
    return _all_weights(device)[:count]
