"""A LoRA adapter on its base model as one source: `model+adapter` without writing a folded model.

Each tensor is folded when it is read, by the arithmetic of PEFT's `merge_and_unload` (peft 0.21,
tuners/lora/layer.py: `Linear.merge`, `Embedding.merge`; variants.py: `DoraLinearVariant`):

    W + B·A · scaling        scaling = alpha / r, or alpha / sqrt(r) with rsLoRA

PEFT holds the factors in the base's dtype, half precision in float32, so B·A is a float32 product as a rule; the sum is
rounded once, to the base's dtype. Equal to `merge_and_unload` bit for bit (tests/merge_hooks/recipes/test_lora.py), and so to what mergekit folds.

Where a layer holds its weight as (in, out), as GPT-2's do, the product is transposed. As in PEFT the layer's class says
so, whatever `fan_in_fan_out` says. Tensors without PEFT's prefix are read as vLLM reads them; PEFT would leave them out.

What adapter_config.json may say is checked in `merge_hooks.sources.adapter_config`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import SourceError
from merge_hooks.hashing import file_stamp, hash_once
from merge_hooks.sources.adapter_config import CONFIG, by_pattern, not_done, refuse_unknown
from merge_hooks.sources.checkpoint import Source, open_source, with_revision
from merge_hooks.sources.facts import full_config, is_code
from merge_hooks.sources.headers import FLOATS, TensorEntry, read_header, read_json

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
# Of classes that transformers does not have.
ENDS = ("embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class _Factors:
    """The tensors of one adapted module, by their names in the adapter file.

    Args:
        is_transposed: whether the weight holds the product transposed: embeddings, GPT-2's layers.
    """

    a: str
    b: str
    is_embedding: bool
    is_transposed: bool
    magnitude: str | None = None


@dataclass
class LoraSource(Source):
    """An adapter over its base, read as the folded model.

    Args:
        name: as the recipe writes it, "model+adapter".
        folder: the base's: config, tokenizer and generation config come from there.
        base: the source beneath, a checkpoint or a merge.
        adapter: the adapter's folder, with adapter_config.json and adapter_model.safetensors.
    Raises:
        SourceError: the adapter is damaged, does not fit its base, or folds in a way that is not done here.
    """

    base: Source = field(kw_only=True)
    adapter: Path = field(kw_only=True)
    adapter_name: str = field(kw_only=True)
    adapter_revision: str | None = None
    _same_ends: bool = field(default=False, repr=False)  # both ends of a tied base come whole, and are one tensor

    @property
    def key(self) -> str:
        return f"{self.base.key}+{self.adapter}"

    @property
    def is_merge(self) -> bool:
        return self.base.is_merge

    @cached_property
    def settings(self) -> dict[str, Any]:
        """adapter_config.json, checked: everything in it is understood."""
        settings = read_json(self.adapter / CONFIG, self.adapter_name)
        refuse_unknown(settings, self.adapter_name)
        return settings

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.base.config

    @cached_property
    def stored(self) -> dict[str, TensorEntry]:
        """The base's tensors: folding changes no name, shape or dtype."""
        self._check_fit()
        return self.base.stored

    @cached_property
    def weight_files(self) -> list[str]:
        return self.base.weight_files

    @cached_property
    def adapter_entries(self) -> dict[str, TensorEntry]:
        """The tensors of the adapter file, by their names without PEFT's prefix."""
        path = self.adapter / WEIGHTS
        if not path.is_file():
            raise SourceError(self._no_weights())
        return {name.removeprefix(PREFIX): entry for name, entry in read_header(path, self.adapter_name).items()}

    @cached_property
    def factors(self) -> dict[str, _Factors]:
        """For each adapted weight of the base, the names of A, B and DoRA's magnitude."""
        found = {}
        for name in self.adapter_entries:
            if name.endswith(".lora_A.weight"):
                module = name.removesuffix(".lora_A.weight")
                weight, magnitude = self._in_base(f"{module}.weight"), f"{module}.lora_magnitude_vector"
                found[weight] = _Factors(
                    name, f"{module}.lora_B.weight", is_embedding=False, is_transposed=weight in self._transposed,
                    magnitude=magnitude if magnitude in self.adapter_entries else None,
                )  # fmt: skip
            elif name.endswith(".lora_embedding_A"):
                module = name.removesuffix(".lora_embedding_A")
                weight = self._in_base(f"{module}.weight")
                found[weight] = _Factors(name, f"{module}.lora_embedding_B", is_embedding=True, is_transposed=True)
        return found

    @cached_property
    def replaced(self) -> dict[str, str]:
        """Weights that the adapter brings whole: base name -> name in the adapter.

        These are `modules_to_save`, and embeddings that PEFT saves although it has factors for them (`base_layer`).
        """
        used = {name for pair in self.factors.values() for name in (pair.a, pair.b, pair.magnitude)}
        whole = (name for name in self.adapter_entries if name not in used)
        plain = ((name.replace(".modules_to_save.", ".").replace(".base_layer.", "."), name) for name in whole)
        return {self._in_base(module): name for module, name in plain}

    @cached_property
    def _transposed(self) -> set[str]:
        """The base's matrices that are held (in, out)."""
        try:
            built = self.base.built
        except SourceError:
            built = None  # as in `_in_base`
        return {self._in_base(name) for name in built.transposed} if built is not None else set()

    @cached_property
    def _tied(self) -> dict[str, str]:
        """The heads that the base ties, each with its embedding, by their names in the files."""
        built = self.base.built
        if built is not None:
            return {self._in_base(head): self._in_base(embedding) for head, embedding in built.tied.items()}
        ends = {name.rsplit(".", 2)[-2]: name for name in (*self.factors, *self.replaced) if name.endswith(ENDS)}
        is_tied = full_config(self.base).get("tie_word_embeddings")
        return {ends.get("lm_head", ""): ends.get("embed_tokens", "")} if is_tied else {}

    def _in_base(self, name: str) -> str:
        """The name that a weight has in the base's files. PEFT writes those of the class that was trained."""
        try:
            return self.base.stored_name(name) or name
        except SourceError:  # adapters are compared without their base, too; whoever reads it says what it lacks
            return name

    def read_stored(self, tensor: str) -> torch.Tensor:
        """One tensor of the folded model, in the base's dtype, on the CPU."""
        if tensor in self.replaced:
            weight = self._adapter_tensor(self.replaced[tensor]).to(_torch_dtype(self.base.stored[tensor].dtype))
        else:
            weight = self.base.read_stored(tensor)
        return self._fold(weight, tensor) if tensor in self.factors else weight

    def delta_factors(self, tensor: str) -> tuple[torch.Tensor, torch.Tensor, float] | None:
        """(B, A, scaling) in float32, with delta = B @ A * scaling; None if the adapter does not touch the tensor.

        Returns:
            B of shape (out, r), A of shape (r, in); in float64 over a base in float64. For embeddings A is (r, tokens), B
            (width, r). The delta is transposed where `factors` says so.
        """
        if tensor not in self.factors:
            return None
        pair = self.factors[tensor]
        return self._float(pair.b, tensor), self._float(pair.a, tensor), self.scaling(tensor)

    def low_rank_update(self, tensor: str, base: Source) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(B, A), scaled and not rounded, with this source = base + B @ A; None if the source is no such sum.

        Args:
            tensor: a weight of two dimensions, (out, in).
            base: what the difference is taken to. There are no factors over another base, with DoRA, or if the adapter
                brings the weight whole and changed.
        Returns:
            B of shape (out, r), A of shape (r, in); r = 0 if the adapter does not touch the tensor.
        """
        import torch

        stored = self.stored_name(tensor)
        if self.base.key != base.key or stored is None or not self._keeps(stored):
            return None
        tensor = stored
        factors = self.delta_factors(tensor)
        if factors is None:
            rows, columns = self.base.stored[tensor].shape
            return torch.zeros(rows, 0), torch.zeros(0, columns)
        pair, (left, right, scaling) = self.factors[tensor], factors
        if pair.magnitude is not None:
            return None
        return (right.T * scaling, left.T) if pair.is_transposed else (left * scaling, right)

    def _keeps(self, tensor: str) -> bool:
        """Whether the factors are added to the base's own weight. PEFT saves a copy of embeddings that have factors."""
        import torch

        if tensor not in self.replaced:
            return True
        own, held = self._adapter_tensor(self.replaced[tensor]), self.base.read_stored(tensor)
        return torch.equal(own.to(held.dtype), held)

    def scaling(self, tensor: str) -> float:
        """alpha / r, or alpha / sqrt(r) with rsLoRA, for the module that holds this weight."""
        rank = self.adapter_entries[self.factors[tensor].a].shape[0]
        pair = self.factors[tensor]
        # PEFT's name of the module, which the pattern is for: the base's files may have another one.
        module = pair.a.removesuffix(".lora_embedding_A" if pair.is_embedding else ".lora_A.weight")
        alpha = by_pattern(self.settings.get("alpha_pattern") or {}, module, self.settings["lora_alpha"])
        return alpha / math.sqrt(rank) if self.settings.get("use_rslora") else alpha / rank

    def _fold(self, weight: torch.Tensor, tensor: str) -> torch.Tensor:
        import torch

        pair = self.factors[tensor]
        product = self._float(pair.b, tensor) @ self._float(pair.a, tensor)
        delta = (product.T if pair.is_transposed else product) * self.scaling(tensor)
        if pair.is_embedding:
            # PEFT's Embedding.merge casts the delta first, its Linear.merge does not.
            return weight + delta.to(weight.dtype)
        if pair.magnitude is None:
            return weight.clone().add_(delta)
        folded = weight + delta
        length = torch.linalg.norm(folded, dim=1).to(folded.dtype)
        factor = self._float(pair.magnitude, tensor) / length
        return (factor.view(-1, 1) * folded).to(weight.dtype)

    def _float(self, name: str, weight: str) -> torch.Tensor:
        """A factor as PEFT holds it over this weight of the base."""
        tensor = self._adapter_tensor(name)
        try:
            is_double = weight in self.base.stored and self.base.stored[weight].dtype == "F64"
        except SourceError:
            is_double = False  # as in `_in_base`
        return tensor.double() if is_double else tensor.float()

    def _adapter_tensor(self, name: str) -> torch.Tensor:
        from safetensors import safe_open

        if WEIGHTS not in self._handles:
            self._handles[WEIGHTS] = safe_open(self.adapter / WEIGHTS, framework="pt")
        handle = self._handles[WEIGHTS]
        return handle.get_tensor(PREFIX + name if PREFIX + name in set(handle.keys()) else name)

    def _check_fit(self) -> None:
        """Every tensor of the adapter must have a counterpart in the base, of the right shape."""
        settings, held = self.settings, self.base.stored
        if settings.get("fan_in_fan_out") and self.base.built is None:
            raise SourceError(not_done(self.adapter_name, ["fan_in_fan_out"]))
        self._forget_same_head()
        self._refuse_tied()  # before it is said that the files hold no head
        for weight, pair in self.factors.items():
            self._check_factors(weight, pair)
        strange = [name for name in self.replaced if name not in held]
        if strange:
            raise SourceError(
                f"{self.adapter_name}: its tensor {strange[0]} has no place in {self.base.name}. "
                "Is this the base model that the adapter was trained on "
                f"({settings.get('base_model_name_or_path') or 'it does not say which'})?"
            )
        for name, own in self.replaced.items():
            if is_code(own, self.adapter_entries[own]):
                raise SourceError(self._quantised(own))
            if self.adapter_entries[own].shape != held[name].shape:
                raise SourceError(self._shape(name, self.adapter_entries[own].shape))

    def _check_factors(self, weight: str, pair: _Factors) -> None:
        held, own = self.base.stored, self.adapter_entries
        if weight not in held or pair.b not in own:
            missing = weight if weight not in held else pair.b
            raise SourceError(
                f"{self.adapter_name}: {missing} is missing from "
                f"{self.base.name if weight not in held else self.adapter / WEIGHTS}, so the adapter cannot be folded. "
                f"It was trained on {self.settings.get('base_model_name_or_path') or 'another base model'}."
            )
        strange = next((name for name in (pair.a, pair.b, pair.magnitude) if name and is_code(name, own[name])), None)
        if strange:
            raise SourceError(self._quantised(strange))
        shape = (own[pair.b].shape[0], own[pair.a].shape[1])
        shape = shape[::-1] if pair.is_transposed else shape
        if shape != held[weight].shape or own[pair.b].shape[1] != own[pair.a].shape[0]:
            raise SourceError(self._shape(weight, shape))
        rank = own[pair.a].shape[0]
        if rank < 1:
            raise SourceError(f"{self.adapter_name}: {pair.a} has rank 0, so the scaling is not known. Save it again.")
        if not self.settings.get("rank_pattern") and rank != self.settings.get("r"):
            raise SourceError(
                f"{self.adapter_name}: {pair.a} has rank {rank}, but {CONFIG} says r = {self.settings.get('r')} and has "
                "no rank_pattern, so the scaling is not known. Mend the file."
            )
        if self.settings.get("use_dora") and (pair.magnitude is None or pair.is_transposed):
            raise SourceError(
                f"{self.adapter_name}: DoRA on {weight} is not folded here (embeddings, GPT-2's layers, or a magnitude that "
                "is missing). Fold it with peft's merge_and_unload() and name the folded model."
            )
        if pair.magnitude and not self.settings.get("use_dora"):
            raise SourceError(
                f"{self.adapter_name}: it holds {pair.magnitude}, which only DoRA has, but {CONFIG} does not set use_dora; "
                "PEFT would leave it out. Mend the one that is wrong."
            )

    def _forget_same_head(self) -> None:
        """Leave out a head that is the embedding, brought whole beside it: mergekit-extract-lora writes both."""
        import torch

        for head, embedding in self._tied.items():
            if head not in self.replaced or embedding not in self.replaced:
                continue
            if torch.equal(*(self._adapter_tensor(self.replaced[end]) for end in (head, embedding))):
                del self.replaced[head]
                self._same_ends = True

    def _refuse_tied(self) -> None:
        tied = {*self._tied, *self._tied.values()}
        ends = [name for name in (*self.factors, *self.replaced) if name in tied]
        if ends and not self._same_ends:
            raise SourceError(
                f"{self.adapter_name}: it changes {ends[0]}, which {self.base.name} ties to its other end; whether the "
                "other end follows depends on how it was trained. Fold it with peft's merge_and_unload() and name "
                "the folded model."
            )

    def _quantised(self, name: str) -> str:
        return (
            f"{self.adapter_name}: its {name} is {self.adapter_entries[name].dtype}, no floating-point numbers, so it is "
            "quantised. Name the original adapter instead."
        )

    def _shape(self, weight: str, shape: tuple[int, ...]) -> str:
        return (
            f"{self.adapter_name}: its {weight} is {'x'.join(map(str, shape))}, that of {self.base.name} "
            f"{'x'.join(map(str, self.base.stored[weight].shape))}. Was it trained on another base model, or with "
            "added tokens? Fold it with peft and name the folded model."
        )

    def _no_weights(self) -> str:
        if (self.adapter / "adapter_model.bin").is_file():
            return (
                f"{self.adapter_name}: only adapter_model.bin in {self.adapter}. It is a pickle, which can run code, so "
                "it is not read. Load it once with peft and save it with safe_serialization=True."
            )
        return f"{self.adapter_name}: no {WEIGHTS} in {self.adapter}. Is this the folder of a LoRA adapter?"

    def close(self) -> None:
        super().close()
        self.base.close()

    @cached_property
    def size(self) -> int:
        return self.base.size + self._weights_stat().st_size

    def _weights_stat(self) -> os.stat_result:
        """Raises SourceError if there are none. An adapter that is named only for its tokenizer was not read before."""
        try:
            return (self.adapter / WEIGHTS).stat()
        except FileNotFoundError:
            raise SourceError(self._no_weights()) from None

    def file_state(self) -> dict[str, tuple[int, int]]:
        state = self._weights_stat()
        return self.base.file_state() | {WEIGHTS: (state.st_size, state.st_mtime_ns)}

    def state(self) -> tuple[Hashable, ...]:
        own = (file_stamp(self.adapter / file) for file in (CONFIG, WEIGHTS))
        return (self.key, self.base.state(), self.adapter_revision, *own)

    def prints(self) -> dict[str, str]:
        return self.base.prints() | {str(self.adapter): self._adapter_fingerprint}

    def fingerprint(self) -> str:
        return f"{self.base.fingerprint()}+{self._adapter_fingerprint}"

    @cached_property
    def _adapter_fingerprint(self) -> str:
        content = hash_once(("adapter", self.state()), self.adapter, [CONFIG, WEIGHTS])
        return with_revision(self.adapter_revision, content)

    def stamps(self) -> tuple[tuple[str, str], ...]:
        return (*self.base.stamps(), (self.adapter_name, self._adapter_fingerprint))

    def to_payload(self) -> dict[str, Any]:
        adapter = {"name": self.adapter_name, "folder": str(self.adapter), "revision": self.adapter_revision}
        return {"kind": "lora", "base": self.base.to_payload(), "adapter": adapter}


def open_lora(base: Source, path: str, revision: str | None, beside: Path | None) -> LoraSource:
    """Find an adapter, on disk or on the Hub, and put it over its base."""
    found = open_source(path, revision, beside)
    return over_base(base, found.name, found.folder, found.revision)


def over_base(base: Source, adapter_name: str, adapter: Path, revision: str | None) -> LoraSource:
    """An adapter folder over a source."""
    name = f"{base.name}+{adapter_name}"
    return LoraSource(
        name, base.folder, None, base=base, adapter=adapter, adapter_name=adapter_name, adapter_revision=revision
    )


def _torch_dtype(name: str) -> torch.dtype:
    import torch

    return getattr(torch, FLOATS[name])
