"""`Resolved`: a recipe whose sources are found, as data. `merge_hooks.resolve` makes it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from merge_hooks.recipe.fisher_maps import map_prints
from merge_hooks.recipe.recipe import Recipe
from merge_hooks.sources import code
from merge_hooks.sources.checkpoint import Source


@dataclass(frozen=True)
class Resolved:
    """What will be merged: a recipe whose sources are found.

    Args:
        recipe: what was written.
        config: mergekit's MergeConfiguration with every model replaced by a local folder.
        sources: each source, by its local folder, in order of appearance; the base model first.
        seed: of the methods that draw at random.
        rng: whose draws: "iberian" or "mergekit" (see `merge_hooks.stream.stream`).
        trust_remote_code: whether configurations and tokenizers may bring code of their own, here and wherever the
            payload goes. If not, none is run, and nobody is asked.
    """

    recipe: Recipe
    config: Any
    sources: dict[str, Source] = field(default_factory=dict)
    seed: int = 0
    rng: str = "iberian"
    trust_remote_code: bool = False

    @property
    def method(self) -> str:
        """mergekit's name of the merge method."""
        return self.config.merge_method

    @property
    def donor(self) -> Source:
        """The source that lends config, tokenizer and generation config: the base model, else the first model.

        mergekit means the same. But without a base model it takes one from an unordered set, so two runs of
        mergekit-yaml may differ.
        """
        return next(iter(self.sources.values()))

    @cached_property
    def prints(self) -> dict[str, str]:
        """The fingerprint of each folder and Fisher map that goes in, by its path: of what lies there when first asked.

        Ask before the weights are read. `merge_hooks.resolve.refuse_changed` says whether it still lies there.
        """
        return self.prints_of(self.sources.values())

    def prints_of(self, sources: Iterable[Source]) -> dict[str, str]:
        """The same of these sources, which may have been opened anew."""
        found = map_prints(self.config)
        for source in sources:
            found |= source.prints()
        if self.trust_remote_code:
            found |= code.code_prints(source.folder for source in sources)
        return found

    @property
    def code(self) -> list[str]:
        """Of `prints`, those of Python files that are run."""
        return [found for path, found in self.prints.items() if path.endswith(code.ENDING)]

    @property
    def dtype(self) -> str | None:
        """The dtype that the recipe asks for, e.g. "bfloat16"; None: that of the sources."""
        return self.config.out_dtype or self.config.dtype

    def payload(self) -> str:
        """A JSON string from which another process rebuilds this object without reading a recipe or the Hub."""
        from merge_hooks.planning.config import dump_config

        sources = [source.to_payload() for source in self.sources.values()]
        return json.dumps(
            {
                "config": dump_config(self.config),
                "sources": sources,
                "origin": self.recipe.origin,
                "seed": self.seed,
                "rng": self.rng,
                "trust_remote_code": self.trust_remote_code,
            }
        )

    @property
    def draws(self) -> str:
        """What random methods draw, for the signature: "none" if nothing is drawn, else seed and generator."""
        from merge_hooks.kernels.choose import is_random

        own = is_random(self.method)
        inner = any(source.draws for source in self.sources.values())
        return f"{self.seed}" + ("-mergekit" if self.rng == "mergekit" else "") if own or inner else "none"
