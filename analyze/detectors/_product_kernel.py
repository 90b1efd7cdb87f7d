"""The compiled part of ``products``: a register tile of fused multiply-adds, and the loops around it."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from analyze.detectors.products import PANEL_ROWS, panel_width

_ROWS = PANEL_ROWS
_KINDS = {
    types.float32: (ir.FloatType(), "f32", panel_width(np.dtype(np.float32)) // 2),
    types.float64: (ir.DoubleType(), "f64", panel_width(np.dtype(np.float64)) // 2),
}


@intrinsic
def _tile(typing_context: Any, left: Any, right: Any, out: Any, depth: Any, stride: Any) -> Any:
    """Add left (depth, 6) transposed times right (depth, 2 vectors) to a tile of ``out``, rows ``stride`` apart."""
    kind = left.dtype
    if kind not in _KINDS or right.dtype != kind or out.dtype != kind:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar, suffix, lanes = _KINDS[kind]
        vector, i64, i32 = ir.VectorType(scalar, lanes), ir.IntType(64), ir.IntType(32)
        fma = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}{suffix}"
        )
        a, b, c = (
            context.make_array(kind_of)(context, builder, value).data
            for kind_of, value in zip(signature.args[:3], args[:3], strict=True)
        )
        align = 4 if suffix == "f32" else 8

        def at(pointer: Any, offset: Any) -> Any:
            return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

        def constant(value: int) -> Any:
            return ir.Constant(i64, value)

        before = builder.basic_block
        loop, after = builder.append_basic_block("terms"), builder.append_basic_block("sums")
        builder.branch(loop)
        builder.position_at_end(loop)
        term = builder.phi(i64)
        term.add_incoming(constant(0), before)
        sums = [builder.phi(vector) for _ in range(2 * _ROWS)]
        for value in sums:
            value.add_incoming(ir.Constant(vector, [0.0] * lanes), before)
        row_of_b = builder.gep(b, [builder.mul(term, constant(2 * lanes))])
        operands = []
        for half in range(2):
            operands.append(builder.load(at(row_of_b, constant(half * lanes))))
            operands[-1].align = align
        row_of_a = builder.gep(a, [builder.mul(term, constant(_ROWS))])
        undefined = ir.Constant(vector, ir.Undefined)
        updated = []
        for row in range(_ROWS):
            value = builder.load(builder.gep(row_of_a, [constant(row)]))
            spread = builder.insert_element(undefined, value, ir.Constant(i32, 0))
            spread = builder.shuffle_vector(spread, undefined, ir.Constant(ir.VectorType(i32, lanes), [0] * lanes))
            updated += [builder.call(fma, [spread, operands[half], sums[2 * row + half]]) for half in range(2)]
        following = builder.add(term, constant(1))
        term.add_incoming(following, builder.basic_block)
        for value, new in zip(sums, updated, strict=True):
            value.add_incoming(new, builder.basic_block)
        builder.cbranch(builder.icmp_signed("<", following, args[3]), loop, after)
        builder.position_at_end(after)
        for row in range(_ROWS):
            start = builder.gep(c, [builder.mul(args[4], constant(row))])
            for half in range(2):
                pointer = at(start, constant(half * lanes))
                old = builder.load(pointer)
                old.align = align
                builder.store(builder.fadd(old, updated[2 * row + half]), pointer).align = align
        return context.get_dummy_value()

    return types.void(left, right, out, depth, stride), codegen


@njit(cache=True, parallel=True, nogil=True)
def multiply_panels(left: Any, panels: Any, out: Any, chain: int, block: int) -> None:
    """Add ``left @ right`` to ``out``; rows of ``left`` are a multiple of the register tile's."""
    rows, terms = left.shape
    count, width, stride = panels.shape[0], panels.shape[2], out.shape[1]
    for number in prange((rows + block - 1) // block):
        first = number * block
        tiles = (min(rows, first + block) - first) // _ROWS
        packed = np.empty((tiles, chain, _ROWS), left.dtype)
        for start in range(0, terms, chain):
            depth = min(terms, start + chain) - start
            for tile in range(tiles):
                for row in range(_ROWS):
                    for term in range(depth):
                        packed[tile, term, row] = left[first + tile * _ROWS + row, start + term]
            for panel in range(count):
                for tile in range(tiles):
                    _tile(  # type: ignore[call-arg]
                        packed[tile],
                        panels[panel, start:],
                        out[first + tile * _ROWS :, panel * width :],
                        depth,
                        stride,
                    )
