"""Scalar building blocks that LLVM turns into vector code: half to float, exp and log by polynomial.

Calls into libm are not vectorised by LLVM, and numba has no float16 arithmetic on the CPU. Both are solved by
functions small enough to be inlined into a loop, which the loop vectoriser then widens to the machine's
registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import float32, int32, int64, types
from numba.core import cgutils
from numba.extending import intrinsic

from analyze.kernels.keeping import compiled

_parts: Any = cgutils.unpack_tuple
_declared: Any = cgutils.get_or_insert_function

# Sums of one row may be reordered (lanes), products contracted to FMA; NaN and inf keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}


def instruction(function: Callable[..., Any]) -> Any:
    """Make a numba intrinsic of a function that writes LLVM instructions."""
    return intrinsic(function)


@instruction
def half_to_float(typing_context: Any, bits: Any) -> Any:
    """Read 16 bits as a half and widen it, by one instruction."""
    if bits != types.uint16:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


@instruction
def float_of_bits(typing_context: Any, bits: Any) -> Any:
    """Take the bits of an integer for those of a float of the same width."""
    if bits == types.int32:
        target: Any = types.float32
        kind: Any = ir.FloatType()
    elif bits == types.int64:
        target, kind = types.float64, ir.DoubleType()
    else:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], kind)

    return target(bits), codegen


def _split(part: str) -> Any:
    """Intrinsic that takes x > 0 apart as m * 2**k with m in [sqrt(1/2), sqrt(2)): all in 32 bits.

    numba's own integer arithmetic is 64 bits wide, and a 64-bit arithmetic shift has no vector form below
    AVX-512.
    """

    @instruction
    def piece(typing_context: Any, value: Any) -> Any:
        if value != types.float32:
            return None

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(32)
            bits = builder.bitcast(args[0], word)
            k = builder.ashr(builder.sub(bits, word(0x3F3504F3)), word(23))  # the bits of sqrt(1/2)
            if part == "exponent":
                return builder.sitofp(k, ir.FloatType())
            return builder.bitcast(builder.sub(bits, builder.shl(k, word(23))), ir.FloatType())

        return types.float32(types.float32), codegen

    return piece


_exponent = _split("exponent")
_mantissa = _split("mantissa")


@instruction
def _truncate(typing_context: Any, value: Any) -> Any:
    """Float to integer of the same width by one instruction (numba's own cast is 64 bits wide and not
    vectorised).
    """
    if value == types.float32:
        target: Any = types.int32
        kind: Any = ir.IntType(32)
    elif value == types.float64:
        target, kind = types.int64, ir.IntType(64)
    else:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fptosi(args[0], kind)

    return target(value), codegen


@instruction
def _nearest(typing_context: Any, value: Any) -> Any:
    """Round to the nearest whole number, a float again (one instruction)."""
    if value not in (types.float32, types.float64):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        function = builder.module.declare_intrinsic("llvm.rint", [kind])
        return builder.call(function, args)

    return value(value), codegen


@instruction
def fetch_ahead(typing_context: Any, rows: Any, row: Any, offset: Any) -> Any:
    """Ask for the cache line ``offset`` bytes into a row of a C-ordered table, which is needed soon.

    Rows that are walked in the order of a score lie anywhere: without asking, every row is waited for.
    """
    if not isinstance(rows, types.Array):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        table = context.make_array(signature.args[0])(context, builder, args[0])
        stride = _parts(builder, table.strides)[0]
        word, flag = ir.IntType(64), ir.IntType(32)
        pointer = ir.IntType(8).as_pointer()
        place = builder.add(builder.ptrtoint(table.data, word), builder.add(builder.mul(args[1], stride), args[2]))
        kind = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        function = _declared(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [builder.inttoptr(place, pointer), flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(rows, types.int64, types.int64), codegen


# Cody-Waite: ln 2 in two parts, so that x - k ln 2 keeps the bits of x. Coefficients: Taylor terms of exp on
# |r| <= ln(2)/2, where seven leave an error below half a unit in the last place of float32.
_LOG2E = float32(1.4426950408889634)
_LN2_HIGH = float32(0.693359375)
_LN2_LOW = float32(-2.12194440e-4)
_LOWEST = float32(-87.0)
_HIGHEST = float32(88.0)
_E2, _E3, _E4, _E5, _E6, _E7 = (float32(1 / f) for f in (2, 6, 24, 120, 720, 5040))


@compiled(fastmath={"contract"}, forceinline=True)
def exp32(x):  # type: ignore[no-untyped-def]
    """exp(x) in float32, relative error < 2e-7; x is held to [-87, 88] (1.6e-38 is the least it returns)."""
    x = min(max(x, _LOWEST), _HIGHEST)
    k = _nearest(x * _LOG2E)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = _E7
    p = p * r + _E6
    p = p * r + _E5
    p = p * r + _E4
    p = p * r + _E3
    p = p * r + _E2
    p = p * r + float32(1.0)
    p = p * r + float32(1.0)
    return p * float_of_bits(int32((_truncate(k) + int32(127)) << int32(23)))


_LOG2E64 = 1.4426950408889634
_LN2_HIGH64 = 6.93147180369123816490e-01
_LN2_LOW64 = 1.90821492927058770002e-10
_F = tuple(1.0 / math.factorial(i) for i in range(14))


@compiled(fastmath={"contract"}, forceinline=True)
def exp64(x):  # type: ignore[no-untyped-def]
    """exp(x) in float64, relative error < 5e-16; x is held to [-700, 700]."""
    x = min(max(x, -700.0), 700.0)
    k = _nearest(x * _LOG2E64)
    r = (x - k * _LN2_HIGH64) - k * _LN2_LOW64
    p = _F[13]
    p = p * r + _F[12]
    p = p * r + _F[11]
    p = p * r + _F[10]
    p = p * r + _F[9]
    p = p * r + _F[8]
    p = p * r + _F[7]
    p = p * r + _F[6]
    p = p * r + _F[5]
    p = p * r + _F[4]
    p = p * r + _F[3]
    p = p * r + _F[2]
    p = p * r + 1.0
    p = p * r + 1.0
    return p * float_of_bits((_truncate(k) + int64(1023)) << int64(52))


@compiled(fastmath={"contract"}, forceinline=True)
def log32(x):  # type: ignore[no-untyped-def]
    """log(x) in float32 for normal x > 0, error < 3e-7 relative to max(|log x|, 1e-7)."""
    k = _exponent(x)
    m = _mantissa(x)
    t = (m - float32(1.0)) / (m + float32(1.0))
    s = t * t
    # atanh series: log m = 2 (t + t^3/3 + ...), |t| < 0.1716
    p = _A9
    p = p * s + _A7
    p = p * s + _A5
    p = p * s + _A3
    return k * _LN2_HIGH + (k * _LN2_LOW + (t * s * p + float32(2.0) * t))


_A3, _A5, _A7, _A9 = (float32(2 / f) for f in (3, 5, 7, 9))
