"""mergekit's tasks, run over our sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import PreflightError
from merge_hooks.sources.checkpoint import Source

if TYPE_CHECKING:
    import torch

    from merge_hooks.sources.residents import ResidentReader


# One of these is in a folder from which a tokenizer can be loaded.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


class SourceReader:
    """What mergekit's LoadTensor wants of a loader, over a Source."""

    def __init__(self, source: Source, reader: ResidentReader | None = None, in_files: bool = False) -> None:
        self.source, self.reader = source, reader
        self._names = source.stored if in_files else source.entries
        self.leaves_on_device = False

    @property
    def index(self) -> SourceReader:
        return self

    @property
    def tensor_paths(self) -> Mapping[str, Any]:
        return self._names  # LoadTensor only looks whether a name is in it

    def get_tensor(self, key: str, device: str = "cpu", **_: Any) -> torch.Tensor:
        tensor = self.source.read(key) if self.reader is None else self.reader.read(self.source, key)
        return tensor if self.leaves_on_device else tensor.to(device)

    def flush(self) -> None:
        self.source.close()


@contextmanager
def left_where_they_are(references: Iterable[Any]) -> Iterator[None]:
    """While this lasts, tensors on a GPU are not brought to the CPU."""
    from mergekit.io.tasks import LoaderCache

    readers = [LoaderCache.loaders[reference] for reference in references]
    for reader in readers:
        reader.leaves_on_device = True
    try:
        yield
    finally:
        for reader in readers:
            reader.leaves_on_device = False


def in_words(error: Exception) -> str:
    """The first line of an error that was meant for programmers, with its class if the line says nothing by itself."""
    text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return text if isinstance(error, RuntimeError) and text else f"{type(error).__name__} {text}".strip()


def run_task(task: Any, memory: dict[str, Any]) -> Any:
    """Run one of mergekit's tasks, after those that it needs.

    Args:
        memory: results to keep between calls. Only the tokenizer is kept; tensors are freed at once.
    """
    from mergekit.tokenizer import BuildTokenizer
    from mergekit.tokenizer.embed import PermutedVocabulary

    if isinstance(task, BuildTokenizer):
        if "tokenizer" not in memory:
            try:
                memory["tokenizer"] = task.execute()
            except (RuntimeError, ValueError, KeyError, TypeError, AssertionError, OSError) as error:
                raise PreflightError(_no_tokenizer(task, error)) from error
        return memory["tokenizer"]
    needed = {name: run_task(one, memory) for name, one in task.arguments().items()}
    if not isinstance(task, PermutedVocabulary):
        return task.execute(**needed)
    try:
        return task.execute(**needed)
    except (AssertionError, KeyError, NotImplementedError, ValueError) as error:
        raise PreflightError(
            f"mergekit cannot align the vocabularies of this recipe: {in_words(error)}. Look at `tokenizer:`, `tokens:`; or "
            "take `tokenizer_source: union`."
        ) from error


def _no_tokenizer(task: Any, error: Exception) -> str:
    """Why a recipe's tokenizer cannot be built: most often a model without one."""
    folders = dict.fromkeys(str(reference.model.path) for reference in task.referenced_models)
    without = [folder for folder in folders if not any((Path(folder) / file).is_file() for file in TOKENIZER_FILES)]
    if not without:
        return f"mergekit cannot build the tokenizer of this recipe: {in_words(error)}."
    return (
        f"{', '.join(without)} has no tokenizer, and `tokenizer_source:` needs that of each model. Copy tokenizer.json and "
        "tokenizer_config.json there from the model that it was trained from, or leave `tokenizer_source:` out if all "
        "models have one vocabulary."
    )
