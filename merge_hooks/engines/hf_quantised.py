"""bitsandbytes' layers of a transformers model, filled from a stream: `quantization=bnb_int8` and `bnb_nf4`.

transformers makes the model, with bitsandbytes' layers in the place of its linear ones. A merge's tensor is quantised
when it comes, by bitsandbytes' own functions, and takes the place of the one before. What lies there afterwards, weights
and scales, is compared with what these functions gave (`merge_hooks.engines.hf_proof`).

Checked with bitsandbytes 0.50: `Params4bit`, `Int8Params`, `functional.quantize_4bit`, `functional.int8_vectorwise_quant`.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import EngineError

if TYPE_CHECKING:
    import torch

QUANTISED = ("bnb_int8", "bnb_nf4")
PACKED = ("Int8Params", "Params4bit")
_VECTOR = 16  # float32 numbers that AVX-512 takes at once


def configuration(quantization: str, dtype: torch.dtype) -> Any:
    """transformers' configuration for one of QUANTISED.

    Args:
        dtype: what nf4 layers compute in; int8 layers compute in float16.
    Raises:
        EngineError: there is no such way, or bitsandbytes is not installed.
    """
    if quantization not in QUANTISED:
        raise EngineError(f"quantization={quantization}: on transformers give one of {', '.join(QUANTISED)}.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise EngineError(f"quantization={quantization}: `pip install bitsandbytes` (or 'lm_eval_iberian[bnb]').")
    from transformers import BitsAndBytesConfig

    if quantization == "bnb_int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def is_packed(parameter: torch.Tensor) -> bool:
    """Whether a parameter is one of bitsandbytes'."""
    return type(parameter).__name__ in PACKED


def scales(parameter: Any) -> torch.Tensor | None:
    """What a packed parameter's integers are multiplied by: one number a row (int8) or a block (nf4).

    None: an int8 layer has computed, and keeps them elsewhere since.
    """
    found: torch.Tensor | None = (
        parameter.SCB if type(parameter).__name__ == "Int8Params" else parameter.quant_state.absmax
    )
    return found


def shape_of(module: Any) -> tuple[int, int]:
    """The shape that a layer's tensor has in a file, before it is packed."""
    inner, outer = module.in_features, module.out_features
    return (inner, outer) if _is_transposed(module) else (outer, inner)


def pack(module: Any, tensor: torch.Tensor) -> torch.nn.Parameter:
    """Quantise a tensor into a layer's weight, in the place of the one that is there. Returns the new parameter."""
    import bitsandbytes
    from bitsandbytes.nn.modules import Int8Params, Params4bit

    new: Any
    old: Any = module.weight
    matrix = _matrix(module, tensor).contiguous()
    if type(old).__name__ == "Int8Params":
        numbers, own, _ = bitsandbytes.functional.int8_vectorwise_quant(matrix.half())
        new = Int8Params(numbers, requires_grad=False, has_fp16_weights=False, CB=numbers, SCB=own)
    else:
        ways = {"blocksize": old.blocksize, "compress_statistics": old.compress_statistics,
                "quant_type": old.quant_type, "quant_storage": old.quant_storage}  # fmt: skip
        numbers, state = bitsandbytes.functional.quantize_4bit(matrix, **ways)
        new = Params4bit(numbers, requires_grad=False, quant_state=state, module=module, bnb_quantized=True, **ways)
        module.quant_state = state
    module.weight = new
    packed: torch.nn.Parameter = module.weight
    return packed


def is_rounding(module: Any, tensor: torch.Tensor) -> bool:
    """Whether a layer's weight, multiplied out again, is the tensor within the steps of its numbers."""
    import bitsandbytes

    weight = module.weight
    matrix = _matrix(module, tensor)
    if type(weight).__name__ == "Int8Params":
        held, peaks = bitsandbytes.functional.int8_vectorwise_dequant(weight.data, weight.SCB), weight.SCB[:, None]
        step = 1 / 127
    else:
        held = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        peaks = weight.quant_state.absmax.repeat_interleave(weight.blocksize)[: matrix.numel()].reshape(matrix.shape)
        step = 0.31  # the widest gap between two numbers of nf4, which lie in [-1, 1]
    apart = (held.float() - matrix.float()).abs()
    # Half a step, and what rounding to float16 or bfloat16 adds on the way.
    return bool((apart <= peaks.float() * (step / 2 + 2**-8)).all())


def in_parts_of_blocks(module: Any) -> str:
    """What is known of a layer whose rows end within a block, as the end of a message; "" for all others.

    bitsandbytes 0.50.2 on a CPU with AVX-512, blocks of 64 and rows of 16 to 398 numbers: all rows were read wrongly that
    are a multiple of 16 and not of 64, and no others.
    """
    weight, row = module.weight, module.in_features
    if type(weight).__name__ != "Params4bit" or row % weight.blocksize == 0 or row % _VECTOR:
        return ""
    return (
        f" Its rows of {row} numbers end within a block of {weight.blocksize}; bitsandbytes reads such rows wrongly on "
        "CPUs with AVX-512. Use a GPU, or quantization=bnb_int8."
    )


def _matrix(module: Any, tensor: torch.Tensor) -> torch.Tensor:
    """A file's tensor as the layer multiplies with it, (out, in), on the layer's device."""
    return (tensor.t() if _is_transposed(module) else tensor).to(module.weight.device)


def _is_transposed(module: Any) -> bool:
    """GPT-2's Conv1D, whose files hold (in, out)."""
    return getattr(getattr(module, "source_cls", None), "__name__", "") == "Conv1D"
