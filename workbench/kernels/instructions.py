"""What compiled loops need and numba has no name for: processors' instructions, and tensors by where they lie in memory.

To be imported only where numba is available.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_SINGLE, _SHORT, _WORD, _DOUBLE_WORD = ir.FloatType(), ir.IntType(16), ir.IntType(64), ir.IntType(128)


@intrinsic
def from_half(context: Any, bits: Any) -> Any:
    """The float32 of a float16's bits."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.fpext(builder.bitcast(given[0], ir.HalfType()), _SINGLE)

    return types.float32(types.uint16), code


@intrinsic
def to_half(context: Any, number: Any) -> Any:
    """The bits of the float16 nearest to a float32, of two as near the even one."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.bitcast(builder.fptrunc(given[0], ir.HalfType()), _SHORT)

    return types.uint16(types.float32), code


@intrinsic
def multiply_add(context: Any, one: Any, other: Any, added: Any) -> Any:
    """`one * other + added` in float32, rounded once."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.fma", [_SINGLE], ir.FunctionType(_SINGLE, [_SINGLE] * 3)), given)

    return types.float32(types.float32, types.float32, types.float32), code


@intrinsic
def upper_half(context: Any, one: Any, other: Any) -> Any:
    """The upper 64 bits of a product of two unsigned numbers of 64 bits."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        wide = [builder.zext(number, _DOUBLE_WORD) for number in given]
        return builder.trunc(builder.lshr(builder.mul(*wide), ir.Constant(_DOUBLE_WORD, 64)), _WORD)

    return types.uint64(types.uint64, types.uint64), code


def _pointer(kind: Any) -> Any:
    @intrinsic
    def pointer(context: Any, address: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), code

    return pointer


singles, shorts = _pointer(types.float32), _pointer(types.uint16)
