"""Recipes of several stages, as `mergekit-multi` reads them: a merge whose sources are merges.

    name: languages            # a stage: later documents call it by this name
    merge_method: linear
    models: [...]
    ---
    merge_method: task_arithmetic
    base_model: meta-llama/Llama-3.1-8B
    models: [{model: languages, parameters: {weight: 1.0}}, ...]

mergekit-multi writes every stage to disk. Here a stage is a source whose tensors are computed when they are read. Only
its config.json and tokenizer lie in a temporary folder while the stage exists, because mergekit and transformers read
them from a folder.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.headers import FLOATS, TensorEntry

if TYPE_CHECKING:
    import torch

    from merge_hooks.recipe.resolved import Resolved
    from merge_hooks.stream.stream import Stream

# What a model that inherits from a stage may want to read there, beside config.json.
CARRIED_FILES = ("tokenizer_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer.model",
               "added_tokens.json", "merges.txt", "vocab.json", "chat_template.jinja", "chat_template.json",
               "generation_config.json")  # fmt: skip
_STORED = {name: stored for stored, name in FLOATS.items()}


@dataclass
class MergedSource(Source):
    """A stage of a recipe as a source: reading a tensor merges it.

    Args:
        name: what later documents call it.
        folder: a temporary folder with its config.json and tokenizer; no weight is ever in it.
        resolved: the stage's own recipe, its sources found.
    """

    resolved: Resolved = field(kw_only=True)

    @cached_property
    def stream(self) -> Stream:
        from merge_hooks.stream.stream import open_stream

        return open_stream(self.resolved)

    @cached_property
    def stored(self) -> dict[str, TensorEntry]:
        """The tensors of the stage. Their shapes come from its sources' headers, so nothing is merged for this."""
        vocabulary = self.config["vocab_size"] if self.stream.plan.tokenizer_task is not None else None
        found = {}
        for output in self.stream.plan:
            held = output.entries
            if not held or (output.is_optional and len(held) < len(output.inputs) and self._is_left_out(output.name)):
                continue
            shape = list(held[0].shape)
            if vocabulary is not None and output.vocabulary_axis is not None:
                shape[output.vocabulary_axis] = vocabulary
            dtype = output.dtype or self.resolved.config.dtype
            found[output.name] = TensorEntry("", _STORED.get(str(dtype), held[0].dtype), tuple(shape))
        return found

    def _is_left_out(self, name: str) -> bool:
        """Whether the merge leaves this tensor out: an optional one that only some sources have. The method decides."""
        return self.stream.tensor(name) is None

    def read_stored(self, tensor: str) -> torch.Tensor:
        """One merged tensor, computed now."""
        merged = self.stream.tensor(tensor)
        assert merged is not None, "only what the stage yields is listed"
        return merged

    @property
    def weight_files(self) -> list[str]:
        return []

    def close(self) -> None:
        for source in self.resolved.sources.values():
            source.close()

    @property
    def size(self) -> int:
        """Bytes that must be read for it."""
        return sum(source.size for source in self.resolved.sources.values())

    def file_state(self) -> dict[str, tuple[int, int]]:
        return {
            f"{key}/{file}": state
            for key, source in self.resolved.sources.items()
            for file, state in source.file_state().items()
        }

    def state(self) -> tuple[Hashable, ...]:
        # Without its folder and those of stages in it: they are temporary, and new each time the recipe is read.
        written = self.resolved.payload()
        for place, stage in enumerate(_inner_stages(self.resolved)):
            written = written.replace(str(stage.folder), f"stage {place}")
        return ("stage", written, *(source.state() for source in self.resolved.sources.values()))

    @property
    def is_merge(self) -> bool:
        return True

    @property
    def draws(self) -> bool:
        return self.resolved.draws != "none"

    def fingerprint(self) -> str:
        from merge_hooks.recipe.signature import recipe_digest

        return recipe_digest(self.resolved)

    def stamps(self) -> tuple[tuple[str, str], ...]:
        own = tuple(stamp for source in self.resolved.sources.values() for stamp in source.stamps())
        return (*own, (self.name, self.fingerprint()))

    def to_payload(self) -> dict[str, Any]:
        return {"kind": "merge", "name": self.name, "folder": str(self.folder), "resolved": self.resolved.payload()}


def open_stage(name: str, resolved: Resolved) -> MergedSource:
    """A stage as a source. Its configuration and tokenizer are written into a temporary folder.

    Raises:
        PreflightError, SourceError: the stage's own sources do not fit together.
    """
    from merge_hooks.checks.preflight import check_fit
    from merge_hooks.stream.tokenizer import choose_tokenizer, copy_code

    folder = Path(tempfile.mkdtemp(prefix="iberian-stage-"))
    source = MergedSource(name, folder, resolved=resolved)
    weakref.finalize(source, shutil.rmtree, folder, ignore_errors=True)
    check_fit(source.stream)
    choice = choose_tokenizer(source.stream)
    source.stream.model_config.save_pretrained(folder)
    for file in CARRIED_FILES:
        if (Path(choice.folder) / file).is_file():
            shutil.copyfile(Path(choice.folder) / file, folder / file)
    if resolved.trust_remote_code:
        for owner in (resolved.donor.folder, Path(choice.folder)):
            copy_code(owner, folder)
    if choice.chat_template is not None:
        (folder / "chat_template.jinja").write_text(choice.chat_template, encoding="utf-8")
    if not (folder / "generation_config.json").exists():
        generation = Path(choice.generation_folder) / "generation_config.json"
        if generation.is_file():
            shutil.copyfile(generation, folder / generation.name)
    return source


def _inner_stages(resolved: Resolved) -> Iterator[MergedSource]:
    """The stages of a recipe and their stages, in the order of its sources; also those below an adapter."""
    for source in resolved.sources.values():
        source = getattr(source, "base", source)
        if isinstance(source, MergedSource):
            yield source
            yield from _inner_stages(source.resolved)
