"""Does the engine get what mergekit-yaml writes? Checksums of both, tensor by tensor.

mergekit runs as its own command, on the same sources, into a temporary folder; a recipe of stages runs in
mergekit-multi. Compared are its files, our stream as it goes in, and the parameters of a transformers model after
loading. (vLLM repacks its weights, so they cannot be compared with files; the stream that it gets is the same.)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from merge_hooks.engines.hf import build_model, engine_dtype, swap_into
from merge_hooks.engines.weights_digest import Digest
from merge_hooks.errors import EngineError
from merge_hooks.planning.config import dump_config
from merge_hooks.planning.registry import method_facts
from merge_hooks.resolve.stages import MergedSource
from merge_hooks.stream.stream import Stream

if TYPE_CHECKING:
    import torch

    from merge_hooks.recipe.resolved import Resolved


@dataclass(frozen=True)
class Verdict:
    """What was compared.

    Args:
        tensors: how many there are.
        elements: how many numbers they hold.
        unequal: tensor -> how many of its elements differ between our stream and mergekit's files.
        missing: tensors that only one side has.
        engine: tensors whose checksum in the transformers model is not the stream's.
        stream_digest: one checksum over the stream.
        mergekit_digest: the same over mergekit's files.
        has_ties: whether the method prunes by magnitude, so that elements tied at a threshold may differ.
    """

    tensors: int
    elements: int
    unequal: dict[str, int]
    missing: list[str]
    engine: list[str]
    stream_digest: str
    mergekit_digest: str
    has_ties: bool

    @property
    def is_equal(self) -> bool:
        """Whether everything is equal, bit for bit."""
        return not (self.unequal or self.missing or self.engine)


def verify(stream: Stream) -> Verdict:
    """Run mergekit beside the stream and compare. Needs disk for one merged checkpoint (and its stages).

    Methods that draw at random are compared with mergekit's own draws for the recipe's seed, so the stream should
    have been opened with `rng="mergekit"`.

    Raises:
        EngineError: mergekit itself fails on this recipe.
    """
    with tempfile.TemporaryDirectory(prefix="iberian-verify-") as folder:
        theirs = _files(run_mergekit(stream.resolved, Path(folder)))
        return _compare(stream, theirs)


def run_mergekit(resolved: Resolved, folder: Path) -> Path:
    """mergekit's own output of a resolved recipe, in `folder`/out."""
    documents = _documents(resolved, [])
    config, out = folder / "recipe.yml", folder / "out"
    config.write_text("---\n".join(yaml.safe_dump(document) for document in documents), encoding="utf-8")
    options = ["--lora-merge-cache", str(folder / "folded"), "--random-seed", str(resolved.seed)]
    options += ["--trust-remote-code"] if resolved.trust_remote_code else []
    if len(documents) == 1:
        command = ["mergekit.scripts.run_yaml", str(config), str(out), "--no-copy-tokenizer", "--quiet"]
    else:
        command = ["mergekit.scripts.multimerge", str(config), "--out-path", str(out), "-I", str(folder / "stages")]
    done = subprocess.run([sys.executable, "-m", *command, *options], capture_output=True, text=True, check=False)
    # mergekit writes all weights before anything else that can fail, e.g. a config that it cannot save.
    if done.returncode and not any(out.glob("*.safetensors")):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EngineError(
            f"mergekit does not merge this recipe, so there is nothing to compare with. It says: {last}. Where its tables "
            "ask for tensors that a model does not have, or do not know its class, the merge can be scored and exported "
            "all the same: here the class that transformers builds decides which tensors a model has."
        )
    return out


def _documents(resolved: Resolved, done: list[str], name: str | None = None) -> list[dict[str, Any]]:
    """The recipe on local folders, after its stages, each under a name that mergekit-multi accepts."""
    documents: list[dict[str, Any]] = []
    names = {}
    for source in _stages(resolved):
        label = f"stage-{source.folder.name}"
        if label not in done:
            done.append(label)
            documents += _documents(source.resolved, done, label)
        names[str(source.folder)] = label
    data = _renamed(dump_config(resolved.config), names)
    return [*documents, {"name": name, **data} if name else data]


def _stages(resolved: Resolved) -> list[MergedSource]:
    from merge_hooks.sources.adapter import LoraSource

    sources = (item.base if isinstance(item, LoraSource) else item for item in resolved.sources.values())
    return [source for source in sources if isinstance(source, MergedSource)]


def _renamed(node: Any, names: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _renamed(value, names) for key, value in node.items()}
    if isinstance(node, list):
        return [_renamed(item, names) for item in node]
    return names.get(node, node) if isinstance(node, str) else node


def _files(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, as views of the mapped files."""
    from safetensors import safe_open

    handles = [safe_open(file, framework="pt") for file in sorted(folder.glob("*.safetensors"))]
    return {name: handle.get_tensor(name) for handle in handles for name in set(handle.keys())}


def _compare(stream: Stream, theirs: dict[str, torch.Tensor]) -> Verdict:
    with Digest() as ours, Digest() as other:
        watched = _Watched(stream, theirs, ours, other)
        model = build_model(watched, proof=False)  # what is unequal is reported below, all of it
        held = dict(model.named_parameters(remove_duplicate=True))
        engine = [name for name, parameter in held.items() if name in watched.seen
                  and watched.seen[name] != ours.checksum(parameter)]  # fmt: skip
        if not held.keys() <= watched.seen.keys():  # some came under a file's name, or in parts: the proof knows how
            swap_into(model, stream)
    missing = [*watched.missing, *(name for name in watched.theirs if name not in stream.plan.left_out)]
    return Verdict(
        len(watched.seen), watched.elements, watched.unequal, missing, engine,
        ours.value, other.value, method_facts(stream.resolved.method).sparsifies,
    )  # fmt: skip


class _Watched(Stream):
    """A stream that compares each tensor with mergekit's on its way into the engine.

    Attributes:
        seen: the checksum of each tensor, in the engine's dtype.
        theirs: mergekit's tensors that have not come yet.
    """

    def __init__(self, stream: Stream, theirs: dict[str, torch.Tensor], ours: Digest, other: Digest) -> None:
        self.__dict__.update(stream.__dict__)
        self.theirs = dict(theirs)
        self.seen: dict[str, str] = {}
        self.unequal: dict[str, int] = {}
        self.missing: list[str] = []
        self.elements = 0
        self.ours, self.other = ours, other
        self._taken = {output.name for output in stream.plan if output.taken}

    def from_files(self) -> Iterator[tuple[str, torch.Tensor]]:
        """As an engine's first load reads it."""
        dtype = engine_dtype(None, self)
        for name, tensor in super().from_files():
            self.seen[name] = self.ours.checksum(tensor.to(dtype))
            self._compare(name, tensor)
            yield name, tensor

    def _compare(self, name: str, tensor: torch.Tensor) -> None:
        if name in self._taken:  # a tower's: mergekit merges it, here it is the donor's
            self.theirs.pop(name, None)
            return
        self.elements += tensor.numel()
        self.ours.add(name, tensor)
        if name not in self.theirs:
            self.missing.append(name)
            return
        other = self.theirs.pop(name)
        self.other.add(name, other)
        if count := _count_unequal(tensor, other):
            self.unequal[name] = count


def _count_unequal(ours: torch.Tensor, theirs: torch.Tensor) -> int:
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return ours.numel()
    return int((ours != theirs).sum())
