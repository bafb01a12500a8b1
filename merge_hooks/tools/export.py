"""A merge as a checkpoint: sharded safetensors, configuration, tokenizer, chat template, generation config, model card.

    export(stream, Path("merged"))

It is written under a temporary name beside the target and renamed at the end, so an interruption leaves nothing
half-made. One shard is in memory at a time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from merge_hooks.checks.estimate import estimate, gigabytes
from merge_hooks.errors import EngineError
from merge_hooks.files import umask, whole_folder
from merge_hooks.resolve.stages import CARRIED_FILES
from merge_hooks.stream.tokenizer import TokenizerChoice, choose_tokenizer

if TYPE_CHECKING:
    import torch

    from merge_hooks.stream.stream import Stream
    from merge_hooks.tools.card import Results

SHARD_BYTES = 5_000_000_000
INDEX = "model.safetensors.index.json"


def export(
    stream: Stream,
    out: Path,
    results: Path | Sequence[Results] = (),
    shard_bytes: int = SHARD_BYTES,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Write a merge as a checkpoint that transformers and vLLM load.

    Args:
        stream: the merge; its sources have passed `check_fit`.
        out: the folder to make; must not exist, or be empty.
        results: lm_eval's results of this merge for the model card: its JSON file, or the content of such files.
        shard_bytes: the largest size of a weight file.
        step: called with the number of tensors that are merged, and of all.
    Returns:
        The names of the files that were written.
    Raises:
        EngineError: `out` is not empty, or the disk is too small.
        RecipeError: the results are of another merge.
    """
    from merge_hooks.tools.card import model_card

    _refuse_target(stream, out)
    choice = choose_tokenizer(stream)
    card = model_card(stream, choice, results)  # first, as it can refuse the results
    with _room_for(out), whole_folder(out) as folder:
        is_tied = bool(getattr(stream.model_config, "tie_word_embeddings", False))
        _write_shards(_without_idle_head(_counted(stream, step), is_tied), folder, shard_bytes)
        stream.model_config.architectures = stream.resolved.donor.config.get("architectures")
        stream.model_config.save_pretrained(folder)
        _write_tokenizer(choice, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / "mergekit_config.yml").write_text(stream.resolved.recipe.text, encoding="utf-8")
    return sorted(file.name for file in out.iterdir())


@contextmanager
def _room_for(out: Path) -> Iterator[None]:
    """Raises EngineError where the disk is full, or the folder cannot be written; nothing is left of it then."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise EngineError(
            f"{out}: cannot be written ({error}). Is the disk full, or the folder somebody else's? Nothing of it was left."
        ) from error


def _refuse_target(stream: Stream, out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EngineError(f"{out}: there is something already. Give the name of a folder that is not there yet.")
    parent = out.absolute().parent
    if not parent.is_dir():
        raise EngineError(f"{parent}: no such folder, so {out.name} cannot be made in it.")
    needs, free = estimate(stream).model, shutil.disk_usage(parent).free
    if needs > free:
        raise EngineError(f"{out}: the merge takes {gigabytes(needs)}, and {gigabytes(free)} are free on that disk.")


def _counted(stream: Stream, step: Callable[[int, int], None]) -> Iterator[tuple[str, torch.Tensor]]:
    total = len(stream.names())
    step(0, total)
    done = 0
    for done, pair in enumerate(stream, start=1):
        yield pair
        del pair  # not held while the next one is merged
        step(done, total)
    if done < total:  # optional tensors that no source has are not in the stream
        step(total, total)


def _without_idle_head(
    weights: Iterable[tuple[str, torch.Tensor]], is_tied: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """Leave out a head that a tied model does not use and whose copy differs, because its random masks do.

    transformers 5 would untie such a checkpoint, and vLLM would not. Without the head both tie it, as they do here.
    """
    import torch

    embedding: torch.Tensor | None = None
    for name, tensor in weights:
        if is_tied and name.endswith("embed_tokens.weight"):
            embedding = tensor
        if is_tied and name.endswith("lm_head.weight") and embedding is not None and not torch.equal(tensor, embedding):
            continue
        yield name, tensor


def _write_shards(weights: Iterable[tuple[str, torch.Tensor]], folder: Path, shard_bytes: int) -> None:
    """Weight files in the Hub's layout: one file, or numbered ones with an index."""
    shard: dict[str, torch.Tensor] = {}
    shards: list[list[str]] = []
    held = total = 0
    for name, tensor in weights:
        size = tensor.numel() * tensor.element_size()
        if shard and held + size > shard_bytes:
            shards.append(_write_shard(shard, folder, len(shards)))
            shard, held = {}, 0
        # A view of a mapped file, or of another tensor, is not to be written twice as one.
        shard[name] = tensor.detach().clone().contiguous()
        held, total = held + size, total + size
    shards.append(_write_shard(shard, folder, len(shards)))
    _name_shards(shards, folder, total)


def _write_shard(shard: dict[str, torch.Tensor], folder: Path, number: int) -> list[str]:
    from safetensors.torch import save_file

    save_file(shard, folder / f"{number}.part", metadata={"format": "pt"})
    (folder / f"{number}.part").chmod(0o666 & ~umask())  # safetensors makes its files private
    return list(shard)


def _name_shards(shards: list[list[str]], folder: Path, total: int) -> None:
    count = len(shards)
    if count == 1:
        (folder / "0.part").rename(folder / "model.safetensors")
        return
    files = [f"model-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
    for number, file in enumerate(files):
        (folder / f"{number}.part").rename(folder / file)
    weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _write_tokenizer(choice: TokenizerChoice, folder: Path) -> None:
    """The tokenizer's own files, the recipe's chat template on it, and the generation config."""
    for file in CARRIED_FILES:
        source = Path(choice.generation_folder if file == "generation_config.json" else choice.folder) / file
        if source.is_file():
            shutil.copyfile(source, folder / file)
    if choice.chat_template is not None:
        choice.load().save_pretrained(folder)
