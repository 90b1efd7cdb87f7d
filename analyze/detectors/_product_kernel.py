"""The compiled part of ``products``: a register tile of fused multiply-adds, and the loops around it.

numba's cache watches this file only: touch it after a change of the sizes in ``_tiles.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils

from analyze.detectors._tiles import panel_width, tile_rows
from analyze.kernels.fastmath import instruction
from analyze.kernels.keeping import compiled

_ROWS = tile_rows()
_KINDS = {
    types.float32: (ir.FloatType(), "f32", panel_width(np.dtype(np.float32)) // 2),
    types.float64: (ir.DoubleType(), "f64", panel_width(np.dtype(np.float64)) // 2),
}


@instruction
def _tile(typing_context: Any, left: Any, right: Any, out: Any, depth: Any, stride: Any, goes_on: Any) -> Any:
    """Left (depth, rows) transposed times right (depth, 2 vectors) into a tile of ``out``, rows ``stride`` apart.

    The sums start at 0, or at what ``out`` holds where the chain goes on.
    """
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

        places, begun = [], []
        for row in range(_ROWS):
            start = builder.gep(c, [builder.mul(args[4], constant(row))])
            places += [at(start, constant(half * lanes)) for half in range(2)]
        for place in places:
            held = builder.load(place)
            held.align = align
            begun.append(builder.select(args[5], held, ir.Constant(vector, [0.0] * lanes)))
        before = builder.basic_block
        loop, after = builder.append_basic_block("terms"), builder.append_basic_block("sums")
        builder.branch(loop)
        builder.position_at_end(loop)
        term = builder.phi(i64)
        term.add_incoming(constant(0), before)
        sums = [builder.phi(vector) for _ in places]
        for value, first in zip(sums, begun, strict=True):
            value.add_incoming(first, before)
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
        for place, new in zip(places, updated, strict=True):
            builder.store(new, place).align = align
        return context.get_dummy_value()

    return types.void(left, right, out, depth, stride, goes_on), codegen


@compiled(error_model="python", cache=True, parallel=True, nogil=True)
def multiply_panels(left: Any, panels: Any, out: Any, depth: int, block: int) -> None:
    """Write ``left @ right`` to ``out``, a block of rows a thread, ``depth`` terms of it at a time."""
    rows, terms = left.shape
    count, width, columns = panels.shape[0], panels.shape[2], out.shape[1]
    for number in prange((rows + block - 1) // block):
        first = number * block
        last = min(rows, first + block)
        tiles = (last - first + _ROWS - 1) // _ROWS
        packed = np.zeros((tiles, depth, _ROWS), left.dtype)
        edge = np.zeros((_ROWS, width), left.dtype)
        for start in range(0, terms, depth):
            taken = min(terms, start + depth) - start
            for tile in range(tiles):
                top = first + tile * _ROWS
                if top + _ROWS <= last:
                    for term in range(taken):
                        for row in range(_ROWS):
                            packed[tile, term, row] = left[top + row, start + term]
                else:
                    for row in range(last - top):
                        packed[tile, :taken, row] = left[top + row, start : start + taken]
            for panel in range(count):
                column = panel * width
                for tile in range(tiles):
                    row = first + tile * _ROWS
                    if column + width <= columns and row + _ROWS <= last:
                        _tile(packed[tile], panels[panel, start:], out[row:, column:], taken, columns, start > 0)
                        continue
                    tall, wide = min(_ROWS, last - row), min(width, columns - column)
                    if start > 0:
                        edge[:tall, :wide] = out[row : row + tall, column : column + wide]
                    _tile(packed[tile], panels[panel, start:], edge, taken, width, start > 0)
                    out[row : row + tall, column : column + wide] = edge[:tall, :wide]
