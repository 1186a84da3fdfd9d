"""What compiled loops need and numba has no name for: processors' instructions, and tensors by where they lie in memory.

To be imported only where numba is available.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_instruction: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic  # whoever calls one gives no context
_SINGLE, _SHORT = ir.FloatType(), ir.IntType(16)


@_instruction
def from_half(context: Any, bits: Any) -> Any:
    """The float32 of a float16's bits."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.fpext(builder.bitcast(given[0], ir.HalfType()), _SINGLE)

    return types.float32(types.uint16), code


@_instruction
def to_half(context: Any, number: Any) -> Any:
    """The bits of the float16 nearest to a float32, of two as near the even one."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.bitcast(builder.fptrunc(given[0], ir.HalfType()), _SHORT)

    return types.uint16(types.float32), code


@_instruction
def multiply_add(context: Any, one: Any, other: Any, added: Any) -> Any:
    """`one * other + added` in float32, rounded once."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.fma", [_SINGLE], ir.FunctionType(_SINGLE, [_SINGLE] * 3)), given)

    return types.float32(types.float32, types.float32, types.float32), code


def _pointer(kind: Any) -> Any:
    @_instruction
    def pointer(context: Any, address: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), code  # type: ignore[no-untyped-call]

    return pointer


singles, shorts = _pointer(types.float32), _pointer(types.uint16)
