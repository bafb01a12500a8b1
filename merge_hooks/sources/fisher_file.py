"""A Fisher map on disk: one safetensors file with a number for each parameter of one checkpoint.

    made = FisherMap.open(Path("basque.fisher.safetensors"))
    made.read("model.norm.weight", weights)      # float32, shape of the weight; refused if made for other weights

The tensors have the checkpoint's names. The file's metadata says what the map was made from (model fingerprint, hash
and number of the texts, settings), which names are tied to which, and a print of every weight. The prints tell a map of
another checkpoint, and of another layer of the same one: mergekit tells a merge method only the name of the output
tensor, and in a recipe of slices that may be the name of another layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import FisherError, SourceError
from merge_hooks.sources.headers import TensorEntry, read_header

if TYPE_CHECKING:
    import torch

FORMAT = "iberian_fisher_1"


@dataclass(frozen=True)
class Provenance:
    """What a Fisher map was made from, as the map itself says.

    Args:
        model: the checkpoint's name without its folder, for messages.
        fingerprint: its content hash or Hub commit.
        texts: hash of the file of texts.
        settings: maximal length, targets, seed, device: what the numbers depend on.
        position: how many texts were processed.
        count: how many of them counted (had a token to predict).
        truncated: how many of these were longer than the maximal length.
        is_whole: False for the saved state of a run that is not finished.
        aliases: tied name -> the name under which its entry is kept.
        prints: weight name -> prints of its values (see `prints_of`).
    """

    model: str
    fingerprint: str
    texts: str
    settings: dict[str, Any]
    position: int
    count: int
    truncated: int
    is_whole: bool
    aliases: dict[str, str]
    prints: dict[str, list[str]]


@dataclass(frozen=True)
class FisherMap:
    """An opened map. Only the header is in memory; see the module."""

    path: Path
    facts: Provenance
    entries: dict[str, TensorEntry]

    @classmethod
    def open(cls, path: Path) -> FisherMap:
        """Raises FisherError: there is no such file, it is incomplete, or it is no map of `iberian fisher`."""
        found = read_map(path)
        if not found.facts.is_whole:
            raise FisherError(
                f"{path}: this is the state of an unfinished `iberian fisher`. Run the same command again; it goes on."
            )
        return found

    def entry(self, name: str) -> TensorEntry | None:
        """Shape and dtype of what the map holds for a weight; None if it holds nothing."""
        return self.entries.get(self.facts.aliases.get(name, name))

    def read(self, name: str, weights: torch.Tensor) -> torch.Tensor:
        """The entries for one weight, on the CPU: float32, shape of the weight, none negative, all finite.

        Args:
            name: of the weight.
            weights: its values, in any float dtype, to check that the map was made for them.
        Raises:
            FisherError: the map has another shape, was made for other values, or is damaged.
        """
        from safetensors import safe_open

        entry = self.entry(name)
        assert entry is not None, "callers ask for what the map has"
        if entry.shape != tuple(weights.shape):
            raise FisherError(
                f"{self.path}: {name} has the shape {_shape(entry.shape)} in this Fisher map of {self.facts.model}, and "
                f"{_shape(tuple(weights.shape))} in the merge. Make the map from the model that it stands beside; "
                "models of different vocabularies (`tokenizer_source:`) have no common map."
            )
        if print_of(weights) not in self.facts.prints.get(name, ()):
            raise FisherError(
                f"{self.path}: {name} has other values than in {self.facts.model}, of which this Fisher map was made. "
                "Make a map of this very model (`iberian fisher MODEL --data ...`). In a recipe of slices, layers must "
                "keep their places."
            )
        with safe_open(self.path, framework="pt") as file:
            values = file.get_tensor(self.facts.aliases.get(name, name))
        if values.numel() and not (float(values.min()) >= 0 and float(values.max()) < float("inf")):
            raise FisherError(f"{self.path}: {name} holds negative values, NaN or infinity. Make the map again.")
        return values


def read_map(path: Path) -> FisherMap:
    """A map or the state of an unfinished one. Raises FisherError."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise FisherError(f"{path}: no such Fisher map. Make it: `iberian fisher MODEL --data texts.jsonl`.")
    try:
        entries = read_header(path, "Fisher map")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if FORMAT not in metadata:
            raise FisherError(f"{path}: this is no Fisher map. Make one: `iberian fisher MODEL --data texts.jsonl`.")
        return FisherMap(path, Provenance(**json.loads(metadata[FORMAT])), entries)
    except FisherError:
        raise
    except (SourceError, SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise FisherError(f"{path}: not a whole Fisher map ({error}). Make it again.") from None


def write_map(path: Path, tensors: Mapping[str, torch.Tensor], facts: Provenance) -> None:
    """Write under a temporary name and rename, so that an interruption leaves the earlier file as it was.

    Raises:
        FisherError: it cannot be written (no room, no permission).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_name(f"{path.name}.writing")
    # One key: safetensors writes several in an order that differs from run to run, and with it the file's hash.
    metadata = {FORMAT: json.dumps(vars(facts), sort_keys=True)}
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, metadata)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise FisherError(f"{path}: cannot write here ({error}). Make room, or give another place.") from error


def print_of(tensor: torch.Tensor) -> str:
    """A hash (16 hex digits) of the values rounded to bfloat16. They survive every merge dtype except float16."""
    import torch
    import xxhash

    rounded = tensor.detach().to(torch.bfloat16).contiguous().cpu()
    return xxhash.xxh3_64(rounded.view(torch.int16).numpy().data).hexdigest()


def prints_of(tensor: torch.Tensor) -> list[str]:
    """What `print_of` gives for a weight after a cast to the merge's dtype; float16 may give another print."""
    import torch

    return list(dict.fromkeys([print_of(tensor), print_of(tensor.to(torch.float16))]))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
