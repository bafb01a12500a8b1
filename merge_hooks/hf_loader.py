"""The same stream into a transformers model, which is made without initialising its weights.

    model = build_model(stream, device="cpu", dtype="bfloat16")     # first load
    load_into(model, other_stream)                                  # a swap, in place

transformers ties some tensors (a head that is the embedding). Files may hold both; as in vLLM the embedding wins,
and the head is not written over it. `from_pretrained` of transformers 5 does the same where they are equal and
unties them where not; that they are equal in every tied source is seen to by `merge_hooks.preflight`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import EngineError, PreflightError
from merge_hooks.tokenizer import generation_config_of

if TYPE_CHECKING:
    import torch

    from merge_hooks.stream import Stream


def build_model(
    stream: Stream,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    generation_folder: str | None = None,
    **options: Any,
) -> Any:
    """A transformers model with the merge's weights, in evaluation mode.

    Args:
        stream: the merge.
        device: where its parameters are made, once; there is no second copy on the host.
        dtype: of the parameters; None or "auto": the recipe's, else the donor's.
        generation_folder: where generation_config.json is read from.
        options: passed on to `from_config`, e.g. attn_implementation.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    config = stream.model_config
    dtype = engine_dtype(dtype, stream)
    with torch.device(device), no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, **options)
    model.tie_weights()
    load_into(model, stream)
    # Of the model whose tokenizer we follow: its end-of-text ids and the like.
    model.generation_config = generation_config_of(generation_folder or str(stream.resolved.donor.folder), config)
    return model.eval()


def load_into(model: Any, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Copy a stream into a model, in place.

    Raises:
        PreflightError: a tensor has no place in the model, or another shape.
        EngineError: the stream ended with weights of the model unset.
    """
    import torch

    targets = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    tied = _tied_names(model)
    unset = {name for name, _ in model.named_parameters()}
    with torch.no_grad():
        for name, tensor in weights:
            if name in tied:
                continue
            target = targets.get(name)
            if target is None or target.shape != tensor.shape:
                found = "no place" if target is None else f"shape {tuple(target.shape)}"
                raise PreflightError(f"{name} of shape {tuple(tensor.shape)} has {found} in {type(model).__name__}.")
            if target.data_ptr() != tensor.data_ptr():  # else it was computed there
                target.copy_(tensor)
            unset.discard(name)
    if unset:
        raise EngineError(f"the merge left {len(unset)} of the model's weights unset, e.g. {min(unset)}.")


def swap_into(model: Any, stream: Stream) -> str:
    """Put another merge into a model that holds one, its tensors computed in the parameters' own memory where they fit.

    Returns:
        The digest of the parameters as they lie in the model now where they have the merge's dtype and lie on the CPU,
        else of what was copied into them: in both cases that of the stream (`merge_hooks.digest`).
    Raises:
        PreflightError, EngineError: see `load_into`.
    """
    from merge_hooks.digest import Digest

    with Digest() as digest:
        load_into(model, digest.watch(stream.into(places_of(model))))
        return digest.value


def places_of(model: Any) -> dict[str, torch.Tensor]:
    """The parameters that a merge can be computed in, by name: see `Stream.into`."""
    tied = _tied_names(model)
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name not in tied and parameter.device.type == "cpu" and parameter.is_contiguous()
    }


def parameters_digest(model: Any, names: Iterable[str]) -> str:
    """The digest of a model's parameters and buffers as they are, in the order of a stream's names.

    Equal to the stream's where the model has the merge's dtype. A head that is tied counts as the embedding it is; so it
    differs from the digest of a stream that held another head for it.
    """
    from merge_hooks.digest import digest_of

    held = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    return digest_of((name, held[name]) for name in names)


def _tied_names(model: Any) -> set[str]:
    """Names whose tensor is another name's, the first name excepted (the embedding, for a tied head)."""
    first: dict[int, str] = {}
    tied = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            tied.add(name)
    return tied


def engine_dtype(dtype: torch.dtype | str | None, stream: Stream) -> torch.dtype:
    """The dtype of the parameters: as given, else the recipe's, else the merged configuration's."""
    import torch

    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in (None, "auto"):
        dtype = stream.resolved.dtype or stream.model_config.dtype or "float32"
    return dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype).removeprefix("torch."))
