"""The stream into a transformers model. The model is made as `from_pretrained` makes it, but without weights.

    model = build_model(stream, device="cpu", dtype="bfloat16")     # first load
    swap_into(model, other_stream)                                  # a swap, in place

Both end with a proof that the model computes with the merge (`merge_hooks.engines.hf_proof`). From the beginning of a
load until its proof the model answers nothing. So a load that breaks off leaves a model that refuses until a whole
merge has been loaded.

transformers ties some tensors (a head that is the embedding). If a file holds both, the embedding wins, as in vLLM, and
the head is not written over it. `from_pretrained` of transformers 5 does the same if they are equal, and unties them if
not. `merge_hooks.checks.preflight` makes sure that they are equal in every tied source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from merge_hooks.architectures.built import Built, class_of, make
from merge_hooks.architectures.conversion import Conversion, to_model
from merge_hooks.engines.bar import with_bar
from merge_hooks.engines.hf_quantised import (
    configuration,
    in_parts_of_blocks,
    is_packed,
    is_rounding,
    pack,
    scales,
    shape_of,
)
from merge_hooks.engines.weights_digest import Digest
from merge_hooks.errors import EngineError, PreflightError
from merge_hooks.stream.tokenizer import generation_config_of

if TYPE_CHECKING:
    import torch

    from merge_hooks.stream.stream import Stream

# The hook that makes a model refuse while it does not hold a whole merge.
_REFUSING: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def build_model(
    stream: Stream,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    generation_folder: str | None = None,
    proof: bool = True,
    quantization: str = "",
    **options: Any,
) -> Any:
    """A transformers model with the merge's weights, in evaluation mode.

    Args:
        stream: the merge.
        device: where its parameters are made, once; there is no second copy on the host.
        dtype: of the parameters; None or "auto": the recipe's, else the donor's.
        generation_folder: where generation_config.json is read from.
        proof: whether to prove that the loaded model is the merge.
        quantization: one of `hf_quantised.QUANTISED`, or "".
        options: of the model's class, e.g. attn_implementation.
    Raises:
        PreflightError, EngineError: see `load_into`.
    """
    from transformers.utils import logging

    dtype = engine_dtype(dtype, stream)
    quantised = configuration(quantization, dtype) if quantization else None
    model = _without_weights(stream, device, dtype, options, quantised)
    # The parameters take no memory before they are filled.
    weights = with_bar(stream.from_files(), len(stream.names()), logging.is_progress_bar_enabled())
    load_into(model, weights, proof, conversion=_conversion(model, stream))
    # That of the model whose tokenizer is used: its end-of-text ids and the like.
    folder = generation_folder or str(stream.resolved.donor.folder)
    model.generation_config = generation_config_of(folder, stream.model_config)
    return model.eval()


def _without_weights(
    stream: Stream, device: str | torch.device, dtype: torch.dtype, options: dict[str, Any], quantised: Any
) -> Any:
    """What `from_pretrained` makes of a checkpoint, with parameters that are not filled yet.

    Buffers, ties, and dtypes that the architecture asks for are those of `from_pretrained`. It computes GPT-J's angles
    in float32, also for a model in bfloat16; `from_config` would compute them in bfloat16.
    """
    import torch
    from transformers.utils import logging

    config = deepcopy(stream.model_config)
    plan = _planned(config, dtype, stream.trust_remote_code, options)
    unfilled = {name: _Unfilled(parameter, device) for name, parameter in plan.named_parameters()}
    is_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # nothing is loaded yet
    try:
        model = type(plan).from_pretrained(
            None, config=config, state_dict=unfilled, dtype=dtype, device_map={"": torch.device(device)},
            **({"quantization_config": quantised} if quantised is not None else {}), **options,
        )  # fmt: skip
    finally:
        if is_shown:
            logging.enable_progress_bar()
    model.config.name_or_path = model.name_or_path = stream.model_config.name_or_path
    return model


def _planned(config: Any, dtype: torch.dtype, trust_remote_code: bool, options: dict[str, Any]) -> Any:
    """The model on the meta device: of the class that the configuration names, text-only or multimodal."""
    import torch
    from transformers import AutoModelForCausalLM

    kind = None if trust_remote_code and getattr(config, "auto_map", None) else class_of(config)
    with torch.device("meta"):
        try:
            if kind is not None:
                return make(kind, config, dtype=dtype, **options)
            return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code, **options)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise EngineError(f"transformers cannot make this model: {type(error).__name__} {error}") from error


class _Unfilled:
    """A parameter in the state dict for `from_pretrained`. Like a parameter in a file, it is made when it is sliced.

    So its memory is allocated once, on the device itself.
    """

    def __init__(self, like: torch.Tensor, device: str | torch.device) -> None:
        self._shape, self._dtype, self._device = like.shape, like.dtype, device

    def __getitem__(self, _: Any) -> torch.Tensor:
        import torch

        return torch.empty(self._shape, dtype=self._dtype, device=self._device)


def load_into(
    model: Any,
    weights: Iterable[tuple[str, torch.Tensor]],
    proof: bool = True,
    digest: Digest | None = None,
    conversion: Conversion | None = None,
) -> None:
    """Copy a stream into a model, in place, and prove that the model now is the merge.

    Whatever is raised, the model answers nothing any more until another load succeeds.

    Args:
        proof: whether to prove it.
        digest: takes in the stream as it comes.
        conversion: what becomes of the weights in this model, as `from_pretrained` would have it. None: they have the
            model's own names.
    Raises:
        PreflightError: a tensor has no place in the model, or another shape.
        EngineError: the stream ended with weights of the model unset, or the model is not what the stream gave.
    """
    from merge_hooks.engines.hf_proof import as_made, prove

    made = as_made(model)
    with _answering_nothing(model):
        made.put_back(model)
        with nullcontext(digest) if digest or not proof else Digest() as taking:
            given = _copy(model, weights, taking, conversion)
        if proof:
            prove(model, made.checksums | given)


def _copy(
    model: Any, weights: Iterable[tuple[str, torch.Tensor]], digest: Digest | None, conversion: Conversion | None
) -> dict[str, str]:
    """Copy every tensor to its place.

    Args:
        digest: takes in the tensors of the stream, before they are converted.
        conversion: what becomes of the stream's tensors in this model.

    Returns:
        The checksum that each place must have afterwards; empty without a digest.
    """
    import torch

    from merge_hooks.engines.hf_proof import checksum, held_by, is_hashed

    targets, tied = dict(held_by(model)), Built(model).tied
    given: dict[str, str] = {}
    unset = {name for name, _ in model.named_parameters()}
    sums: dict[int, str] = {}  # of the tensors that go on as they came
    with torch.no_grad():
        taken = _taken_in(weights, digest, sums)
        for name, tensor in conversion.stream(taken) if conversion else taken:
            own = sums.pop(id(tensor), "")
            if name in tied:
                continue
            target = targets.get(name)
            if target is not None and is_packed(target):
                del targets[name], target  # the old weights go before the new ones come
                given |= _packed(model, name, tensor, digest)
                unset.discard(name)
                continue
            if target is None or target.shape != tensor.shape:
                found = "no place" if target is None else f"shape {tuple(target.shape)}"
                raise PreflightError(f"{name} of shape {tuple(tensor.shape)} has {found} in {type(model).__name__}.")
            cast = tensor.to(target.dtype)
            if digest:
                # Taken where the merge left the tensor, so that the way to its place, perhaps on a GPU, is proved too.
                as_it_came = own and cast is tensor and is_hashed(target)
                given[name] = own if as_it_came else checksum(cast, target, digest)
            if target.data_ptr() != tensor.data_ptr():  # else it was computed there
                target.copy_(cast)
            unset.discard(name)
    if unset:
        raise EngineError(f"the merge left {len(unset)} of the model's weights unset, e.g. {min(unset)}.")
    return given


def _packed(model: Any, name: str, tensor: torch.Tensor, digest: Digest | None) -> dict[str, str]:
    """Quantise a tensor to its place. Returns the checksums of its numbers and scales, without a digest none.

    Raises:
        PreflightError: it has another shape than the layer.
    """
    from merge_hooks.engines.hf_proof import checksum

    module = model.get_submodule(name.rpartition(".")[0])
    if tuple(tensor.shape) != shape_of(module):
        raise PreflightError(
            f"{name} of shape {tuple(tensor.shape)} has shape {shape_of(module)} in {type(model).__name__}."
        )
    new = pack(module, tensor.to(model.dtype))
    if not digest:
        return {}
    if not is_rounding(module, tensor):
        raise EngineError(
            f"{name}: what bitsandbytes made of the merge's tensor is no rounding of it.{in_parts_of_blocks(module)}"
        )
    parts = {name: new, f"{name}.scales": scales(new)}
    return {place: checksum(held, held, digest) for place, held in parts.items() if held is not None}


def _taken_in(
    weights: Iterable[tuple[str, torch.Tensor]], digest: Digest | None, sums: dict[int, str]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The same pairs, taken in by the digest; `sums` has the checksum of each that has not been used yet."""
    for name, tensor in weights:
        if digest:
            sums.clear()
            sums[id(tensor)] = digest.add(name, tensor)
        yield name, tensor


@contextmanager
def _answering_nothing(model: Any) -> Iterator[None]:
    """While this lasts the model refuses to compute; if this ends with an error, it goes on refusing."""

    def refuse(*_: Any) -> None:
        raise EngineError(
            "the last merge did not come whole into this model (see the error before this one), so it holds weights of "
            "two merges. It answers again after the next swap that succeeds."
        )

    if model not in _REFUSING:
        # The embedding, which every text goes through, whichever part of the model is asked.
        _REFUSING[model] = model.get_input_embeddings().register_forward_pre_hook(refuse)
    yield
    _REFUSING.pop(model).remove()


def swap_into(model: Any, stream: Stream, proof: bool = True) -> str:
    """Put another merge into a model. Tensors are computed in the parameters' own memory where they fit.

    Returns:
        The digest of the stream that went in (`merge_hooks.engines.weights_digest`). `proof` shows that the model holds
        it.
    Raises:
        PreflightError, EngineError: see `load_into`.
    """
    conversion = _conversion(model, stream)
    places = places_of(model)
    # Those of the tensors that come whole, by the stream's names.
    whole = {name: places[target] for name, target in conversion.renamed.items() if target in places}
    with Digest() as digest:
        load_into(model, stream.into(whole), proof, digest, conversion)
        return digest.value


def _conversion(model: Any, stream: Stream) -> Conversion:
    """What becomes of a stream's tensors in a model. Raises PreflightError where one has no place in it."""
    conversion = to_model(Built(model), stream.names(), None)
    if conversion.unused:
        raise PreflightError(f"{conversion.unused[0]} has no place in {type(model).__name__}.")
    return conversion


def places_of(model: Any) -> dict[str, torch.Tensor]:
    """The parameters that a merge can be computed in, by name: see `Stream.into`."""
    tied = Built(model).tied
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name not in tied
        and parameter.device.type == "cpu"
        and parameter.is_contiguous()
        and not is_packed(parameter)
    }


def engine_dtype(dtype: torch.dtype | str | None, stream: Stream) -> torch.dtype:
    """The dtype of the parameters: as given, else the recipe's, else the merged configuration's, else that of the files."""
    import torch

    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in (None, "auto"):
        dtype = stream.resolved.dtype or stream.model_config.dtype or stream.dtype_of_files
    return dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype).removeprefix("torch."))
