"""The bits of a float32 in numba's kernels: magnitude, sign, finiteness, rounding to bfloat16."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_INT, _FLOAT = ir.IntType(32), ir.FloatType()


def _number(value: int) -> Any:
    return ir.Constant(_INT, value)


@intrinsic
def magnitude(context: Any, value: Any) -> Any:
    """The bit pattern of |float32|, an int32: orders like the number; from 0x7F800000 on not finite."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.and_(builder.bitcast(arguments[0], _INT), _number(0x7FFFFFFF))

    return types.int32(types.float32), code


@intrinsic
def flag(context: Any, seen: Any, value: Any) -> Any:
    """`seen`, an int32, made negative for ever if a float32 is NaN or infinite."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pattern = builder.and_(builder.bitcast(arguments[1], _INT), _number(0x7FFFFFFF))
        return builder.or_(arguments[0], builder.add(pattern, _number(0x00800000)))

    return types.int32(types.int32, types.float32), code


@intrinsic
def same_sign(context: Any, one: Any, other: Any) -> Any:
    """Whether two float32 have equal sign bits."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one, other = (builder.bitcast(argument, _INT) for argument in arguments)
        return builder.icmp_signed(">=", builder.xor(one, other), _number(0))

    return types.boolean(types.float32, types.float32), code


@intrinsic
def to_bfloat16(context: Any, value: Any) -> Any:
    """A float32 rounded to bfloat16's values, ties to even; NaN stays NaN."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pattern = builder.bitcast(arguments[0], _INT)
        odd = builder.and_(builder.lshr(pattern, _number(16)), _number(1))
        rounded = builder.add(pattern, builder.add(odd, _number(0x7FFF)))
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        chosen = builder.select(is_nan, builder.or_(pattern, _number(0x00400000)), rounded)
        return builder.bitcast(builder.and_(chosen, _number(-65536)), _FLOAT)

    return types.float32(types.float32), code


@intrinsic
def to_bfloat16_fast(context: Any, value: Any) -> Any:
    """The same for what is no NaN, or one that arithmetic made (its lower bits are 0)."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pattern = builder.bitcast(arguments[0], _INT)
        odd = builder.and_(builder.lshr(pattern, _number(16)), _number(1))
        rounded = builder.add(pattern, builder.add(odd, _number(0x7FFF)))
        return builder.bitcast(builder.and_(rounded, _number(-65536)), _FLOAT)

    return types.float32(types.float32), code


@intrinsic
def flag_narrow(context: Any, seen: Any, value: Any) -> Any:
    """`flag` for a float32 about to be rounded to bfloat16: also where that makes it infinite."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pattern = builder.and_(builder.bitcast(arguments[1], _INT), _number(0x7FFFFFFF))
        return builder.or_(arguments[0], builder.add(pattern, _number(0x00808000)))

    return types.int32(types.int32, types.float32), code


@intrinsic
def from_pattern(context: Any, pattern: Any) -> Any:
    """The float32 of a bfloat16's bit pattern."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.shl(builder.zext(arguments[0], _INT), _number(16)), _FLOAT)

    return types.float32(types.uint16), code


@intrinsic
def to_pattern(context: Any, value: Any) -> Any:
    """The bit pattern of a float32 that is a bfloat16's value."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.trunc(builder.lshr(builder.bitcast(arguments[0], _INT), _number(16)), ir.IntType(16))

    return types.uint16(types.float32), code


@intrinsic
def multiply_add(context: Any, one: Any, other: Any, sum_: Any) -> Any:
    """one * other + sum_ in float32, rounded once."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), code
