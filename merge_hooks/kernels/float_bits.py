"""float32 arithmetic that rounds as another dtype, on the bits of the numbers: instructions for numba.

A stored number is a float32, a bfloat16 (its pattern, a uint16) or a float16 (its pattern, an int16: so the three are
three types to numba). Arithmetic is float32's; `rounded(value, like)` gives the value that a merge in the dtype of
`like` would have. Two float32 operations on such values round as that dtype's own operation does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# One number of each dtype, by whose type the functions below know it.
FLOAT32, BFLOAT16, FLOAT16 = np.float32(0), np.uint16(0), np.int16(0)
_INT, _SHORT, _FLOAT, _HALF = ir.IntType(32), ir.IntType(16), ir.FloatType(), ir.HalfType()


def _number(value: int) -> Any:
    return ir.Constant(_INT, value)


def _widened(builder: Any, value: Any, kind: Any) -> Any:
    """A stored number as float32."""
    if kind == types.uint16:
        return builder.bitcast(builder.shl(builder.zext(value, _INT), _number(16)), _FLOAT)
    return builder.fpext(builder.bitcast(value, _HALF), _FLOAT) if kind == types.int16 else value


def _rounded(builder: Any, value: Any, kind: Any) -> Any:
    """A float32 rounded to the values of `kind`, ties to even; see `rounded` for NaN."""
    if kind == types.uint16:
        pattern = builder.bitcast(value, _INT)
        odd = builder.and_(builder.lshr(pattern, _number(16)), _number(1))
        pattern = builder.add(pattern, builder.add(odd, _number(0x7FFF)))
        return builder.bitcast(builder.and_(pattern, _number(-65536)), _FLOAT)
    return builder.fpext(builder.fptrunc(value, _HALF), _FLOAT) if kind == types.int16 else value


def _as_kind(builder: Any, value: Any, kind: Any, wanted: Any) -> Any:
    """A float32 with a value of `kind`, rounded to the values of `wanted`; NaN stays NaN."""
    if wanted in (kind, types.float32):
        return value
    is_nan = builder.fcmp_unordered("uno", value, value)
    return builder.select(is_nan, ir.Constant(_FLOAT, float("nan")), _rounded(builder, value, wanted))


@intrinsic
def widest(context: Any) -> Any:
    """Let the function that says this use vectors of 512 bits: for Intel's processors LLVM takes half of that.

    llvmlite 0.47 keeps a function's attributes in a set whose own `add` knows only some of LLVM's. Where they lie
    elsewhere, the function is compiled as it would be without; test_compiled.py sees that.
    """

    def code(inner: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        attributes = builder.function.attributes
        if isinstance(attributes, set):
            set.add(attributes, '"prefer-vector-width"="512"')
        return inner.get_dummy_value()

    return types.void(), code


@intrinsic
def fit(context: Any, stored: Any, like: Any) -> Any:
    """A stored number as float32, rounded to the dtype of `like`; NaN stays NaN."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _as_kind(builder, _widened(builder, arguments[0], stored), stored, like)

    return types.float32(stored, like), code


@intrinsic
def rounded(context: Any, value: Any, like: Any) -> Any:
    """A float32 rounded to the dtype of `like`. NaN stays NaN if it comes from values of that dtype."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _rounded(builder, arguments[0], like)

    return types.float32(types.float32, like), code


@intrinsic
def cast(context: Any, value: Any, like: Any, kind: Any) -> Any:
    """A float32 with a value of the dtype of `like`, rounded to the dtype of `kind`; NaN stays NaN."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _as_kind(builder, arguments[0], like, kind)

    return types.float32(types.float32, like, kind), code


@intrinsic
def store(context: Any, value: Any, kind: Any) -> Any:
    """A float32 with a value of the dtype of `kind`, as it is stored."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if kind == types.uint16:
            return builder.trunc(builder.lshr(builder.bitcast(arguments[0], _INT), _number(16)), _SHORT)
        return builder.bitcast(builder.fptrunc(arguments[0], _HALF), _SHORT) if kind == types.int16 else arguments[0]

    return kind(types.float32, kind), code


@intrinsic
def flag(context: Any, seen: Any, value: Any) -> Any:
    """`seen`, a float32 that is 0, made NaN for ever if a float32 is NaN or infinite."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # In any order and fused, which gives the same here, so that the loop around it is vectorised.
        nothing = builder.fmul(arguments[1], ir.Constant(_FLOAT, 0.0), flags=("contract",))
        return builder.fadd(arguments[0], nothing, flags=("reassoc", "contract"))

    return types.float32(types.float32, types.float32), code


@intrinsic
def magnitude(context: Any, value: Any) -> Any:
    """The bit pattern of |float32|, an int32: orders like the number; from 0x7F800000 on not finite."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.and_(builder.bitcast(arguments[0], _INT), _number(0x7FFFFFFF))

    return types.int32(types.float32), code


@intrinsic
def same_sign(context: Any, one: Any, other: Any) -> Any:
    """Whether two float32 have equal sign bits."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one, other = (builder.bitcast(argument, _INT) for argument in arguments)
        return builder.icmp_signed(">=", builder.xor(one, other), _number(0))

    return types.boolean(types.float32, types.float32), code


@intrinsic
def multiply_add(context: Any, one: Any, other: Any, sum_: Any) -> Any:
    """one * other + sum_ in float32, rounded once."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), code
