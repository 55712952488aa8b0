"""Sixteen scattered reads a step: pixels of maps that mix the axes, and entries of tables.

Compilers read scattered values one by one. The processor's gather fetches four bytes at sixteen places at once:
two neighbouring pixels of a row for interpolation, an entry of a table. Needs AVX-512 (:data:`VECTORS`); others take
the plain loops of :mod:`rxrx_kernels.augment.uint8`, which give the same bits.
"""

from __future__ import annotations

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["GROUP", "VECTORS", "blend_group", "look_up_group"]

#: Whether this processor gathers sixteen values.
VECTORS = bool(binding.get_host_cpu_features().get("avx512bw", False))
GROUP = 16

_BIT, _INT, _FLOAT = ir.IntType(1), ir.IntType(32), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_INT, GROUP), ir.VectorType(_FLOAT, GROUP)


def _every(value):
    return ir.Constant(_INTS, [value] * GROUP)


def _load(builder, address, kind):
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _store(builder, address, value):
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


def _gather(builder, base, places, kind, scale):
    """Four bytes at ``base + scale * place`` for each place."""
    name = "dpi" if kind is _INTS else "dps"
    pointer = ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind, pointer, _INTS, ir.VectorType(_BIT, GROUP), _INT]),
        f"llvm.x86.avx512.mask.gather.{name}.512",
    )
    everything = ir.Constant(ir.VectorType(_BIT, GROUP), [1] * GROUP)
    nothing = ir.Constant(kind, None)
    return builder.call(
        function, [nothing, builder.inttoptr(base, pointer), places, everything, ir.Constant(_INT, scale)]
    )


@intrinsic
def blend_group(typing, plane, pitch, columns, rows, total):
    """Add bilinear values, in 1/65536 of a grey value, of sixteen places to ``total`` (int32).

    ``columns`` and ``rows`` are addresses of sixteen int32 in 1/256 of a pixel; all that four bytes from each place, in
    its row and the next, touch must lie within the plane.
    """

    def generate(context, builder, signature, arguments):
        plane, pitch, columns, rows, total = arguments
        c, r = _load(builder, columns, _INTS), _load(builder, rows, _INTS)
        low = _every(255)
        x, y = builder.and_(c, low), builder.and_(r, low)
        wide = builder.trunc(pitch, _INT)
        spread = builder.shuffle_vector(
            builder.insert_element(ir.Constant(_INTS, ir.Undefined), wide, ir.Constant(_INT, 0)),
            ir.Constant(_INTS, ir.Undefined),
            ir.Constant(_INTS, [0] * GROUP),
        )
        eight = _every(8)
        place = builder.add(builder.mul(builder.ashr(r, eight), spread), builder.ashr(c, eight))

        def between(first, second, part):
            difference = builder.mul(builder.sub(second, first), part)
            return builder.add(builder.shl(first, eight), difference)

        lines = []
        for base in (plane, builder.add(plane, pitch)):
            pixels = _gather(builder, base, place, _INTS, 1)
            lines.append(between(builder.and_(pixels, low), builder.and_(builder.lshr(pixels, eight), low), x))
        _store(builder, total, builder.add(_load(builder, total, _INTS), between(*lines, y)))
        return context.get_dummy_value()

    return types.void(*[types.uint64] * 5), generate


@intrinsic
def look_up_group(typing, line, table):
    """Look up sixteen float32 grey values at ``line`` in the row of a table at ``table``, in place.

    As :func:`rxrx_kernels.augment.photometric.make_look_up8` does.
    """

    def generate(context, builder, signature, arguments):
        line, table = arguments
        value = _load(builder, line, _FLOATS)
        for limit, worse in ((0.0, "<"), (255.0, ">")):
            bound = ir.Constant(_FLOATS, [limit] * GROUP)
            value = builder.select(builder.fcmp_ordered(worse, value, bound), bound, value)
        place = builder.fptosi(value, _INTS)
        part = builder.fsub(value, builder.sitofp(place, _FLOATS))
        here = _gather(builder, table, place, _FLOATS, 4)
        following = _gather(builder, builder.add(table, ir.Constant(ir.IntType(64), 4)), place, _FLOATS, 4)
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), "llvm.fma.v16f32")
        _store(builder, line, builder.call(fma, [part, builder.fsub(following, here), here]))
        return context.get_dummy_value()

    return types.void(*[types.uint64] * 2), generate
