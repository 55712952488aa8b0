"""Every augmentation of a site in one pass on the CPU: sample, shade, add noise, normalise, erase, cast, store.

What happens to an output row happens while it is in the L1 cache; each output pixel is written to memory once. The
order is the one in which a microscope and a user act: the optics blur (:mod:`rxrx_kernels.blur`, the one step with a
pass of its own), the stage places the sample (:mod:`rxrx_kernels.warp`), the light shades it, the camera adds noise
(:mod:`rxrx_kernels.tone`), the value is normalised by a table or by ``(value - center) * scale``, pixels are erased.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic
from rxrx_kernels import fused_lines, tone, warp, warp_lines
from rxrx_kernels.blur import blur_plane
from rxrx_kernels.noise import NORMAL, scramble

__all__ = ["Augmentation", "augment_site", "plain"]


class Augmentation(NamedTuple):
    """What is done to one site for one view. C channels of output; arrays of length 0 leave an operation out.

    matrix : (6,) int64
        Geometry, from output to source, see :func:`rxrx_kernels.warp.fixed`.
    sampling : (2,) int64
        Filter and border, constants of :mod:`rxrx_kernels.warp`.
    order : (C,) int64
        Source channel of each output channel; -1 for a channel that is left out, which is 0 everywhere. The tables
        below are by output channel.
    fill : (C,) float32
        Grey value outside of the source, with the border CONSTANT.
    center, scale : (C,) float32
    table : (C, 257) float32, or (0, 257)
        Takes the place of center and scale, see :func:`rxrx_kernels.tone.make_toned`.
    box : (4,) int64
        Erased pixels, ``y0, y1, x0, x1`` of the output.
    erase : (2,) float32
        Their value after normalisation, and the standard deviation of normal noise about it.
    noise : (C, 2) float32, or (0, 2)
        Standard deviation of read noise in grey values, and variance of shot noise by grey value.
    key : (2,) uint32
        Of all noise.
    flat : (C, GH, GW) float32, or (0, 0, 0)
        Factors that undo uneven illumination, at nodes from the first pixel to the last or beyond.
    shift : int
        Nodes lie ``1 << shift`` pixels apart.
    bend : (2, G, G) int32, or (2, 0, 0)
        Displacement in x and y of an elastic deformation at control points, in 1/256 of a source pixel.
    blur : (T,) int32
        Weights of :func:`rxrx_kernels.blur.gaussian`.
    steps : (C,) int64, or (0,)
        For the tables of 16-bit images, see :mod:`rxrx_kernels.augment16`.
    """

    matrix: np.ndarray
    sampling: np.ndarray
    order: np.ndarray
    fill: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    table: np.ndarray
    box: np.ndarray
    erase: np.ndarray
    noise: np.ndarray
    key: np.ndarray
    flat: np.ndarray
    shift: int
    bend: np.ndarray
    blur: np.ndarray
    steps: np.ndarray


def plain(channels: int, center=None, scale=None) -> Augmentation:
    """No augmentation: the identity, to be changed with ``_replace``."""
    f32 = np.float32
    return Augmentation(
        matrix=warp.fixed(np.eye(2, 3)),
        sampling=np.array([warp.ANTIALIAS, warp.CONSTANT]),
        order=np.arange(channels),
        fill=np.zeros(channels, f32),
        center=np.zeros(channels, f32) if center is None else np.asarray(center, f32),
        scale=np.ones(channels, f32) if scale is None else np.asarray(scale, f32),
        table=np.zeros((0, tone.TABLE), f32),
        box=np.zeros(4, np.int64),
        erase=np.zeros(2, f32),
        noise=np.zeros((0, 2), f32),
        key=np.zeros(2, np.uint32),
        flat=np.zeros((0, 0, 0), f32),
        shift=0,
        bend=np.zeros((2, 0, 0), np.int32),
        blur=np.zeros(0, np.int32),
        steps=np.zeros(0, np.int64),
    )


@intrinsic
def _fma(typing, a, b, c):
    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@intrinsic
def _bytes(typing, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.uint64), generate


_inline = njit(inline="always")
_reach = _inline(warp.reach)
_sample = njit(nogil=True, cache=True)(warp.make_sample(_reach))
_samples, _place, _outside = _inline(warp.samples), _inline(warp.place), _inline(warp.outside)
_node = _inline(tone.node)
_shaded, _noisy, _toned = (_inline(make(_fma)) for make in (tone.make_shaded, tone.make_noisy, tone.make_toned))
_scramble = _inline(scramble)
_u = np.uint64

# Lines carry this many spare pixels at either end, which a register may read and which nothing depends on. They also
# keep the lines of a transposed plane, whose length is a power of 2, from falling on the same few cache sets.
_SPARE = 64


@njit(nogil=True, cache=True)
def _transposed(plane, out):
    """``out[x, y] = plane[y, x]``; rows of ``out`` may be longer than columns of ``plane``."""
    rows, columns = plane.shape
    whole_rows, whole_columns = rows - rows % 8, columns - columns % 8
    source, pitch = _u(plane.ctypes.data), _u(plane.strides[0])
    target, target_pitch = _u(out.ctypes.data), _u(out.strides[0])
    # A strip of 64 columns: one cache line of each source row.
    for x0 in range(_u(0), _u(whole_columns), _u(64)):
        for y in range(_u(0), _u(whole_rows), _u(8)):
            for x in range(x0, min(x0 + _u(64), _u(whole_columns)), _u(8)):
                fused_lines.turn_block(source + y * pitch + x, pitch, target + x * target_pitch + y, target_pitch)
    for x in range(columns):
        for y in range(whole_rows if x < whole_columns else 0, rows):
            out[x, y] = plane[y, x]


@njit(inline="always")
def _pad(line, columns, start, stop, border):
    """Pixels ``start`` to ``stop`` of a mixed row, outside of the image; ``line`` is the address of its first pixel."""
    for i in range(start, stop):
        at = _reach(i, columns, border)
        warp_lines.put_short(line + _u(2 * i), warp_lines.get_short(line + _u(2 * at)))


@njit(inline="always")
def _mixed(plane, rows, columns, pitch, line, first, weights, width, border):
    """One row of the output between rows of the source: taps along the column. All but counts are addresses."""
    for j in range(0, width, 2):
        wa, wb = warp_lines.get_short(weights + _u(2 * j)), warp_lines.get_short(weights + _u(2 * j + 2))
        a, b = _reach(first + j, rows, border), _reach(first + j + 1, rows, border)
        warp_lines.mix_rows(plane + _u(a) * pitch, plane + _u(b) * pitch, wa, wb, line, _u(columns), j > 0)


@njit(nogil=True, cache=True)
def _lit(y, m, shape, shift, nodes, parts):
    """Where the pixels of an output row lie in the illumination's grid: nodes (2, W) int32, parts (2, W) float32."""
    for x in range(nodes.shape[1]):
        c, r = _place(m, np.int64(x), np.int64(y), 0, 0, 0, warp.BILINEAR)
        nodes[0, x], parts[0, x] = _node(c, shape[1], shift)
        nodes[1, x], parts[1, x] = _node(r, shape[0], shift)


@njit(nogil=True, cache=True)
def _shade(line, flat, k, nodes, parts):
    """Multiply a row of grey values by the illumination's factors."""
    for x in range(nodes.shape[1]):
        i, j = nodes[0, x], nodes[1, x]
        upper = _shaded(flat[k, j, i], flat[k, j, i + 1], parts[0, x])
        lower = _shaded(flat[k, j + 1, i], flat[k, j + 1, i + 1], parts[0, x])
        line[x] *= _shaded(upper, lower, parts[1, x])


@njit(nogil=True, cache=True)
def _add_noise(line, width, start, noise, k, key):
    low, high, sigma, shot = key[0], key[1], noise[k, 0], noise[k, 1]
    for x in range(width):
        normal = NORMAL[_scramble(np.uint32(start + np.uint32(x)), low, high)]
        line[x] = _noisy(line[x], normal, sigma, shot)


@njit(nogil=True, cache=True)
def _erase(line, x0, x1, start, erase, key):
    # Another key than the camera's noise has.
    low, high = key[0], np.uint32(key[1] ^ np.uint32(0x5BD1E995))
    for x in range(x0, x1):
        line[x] = erase[0]
        if erase[1] != 0:
            line[x] = _fma(NORMAL[_scramble(np.uint32(start + np.uint32(x)), low, high)], erase[1], erase[0])


@njit(nogil=True, cache=True)
def _tone(line, width, table, k):
    for x in range(width):
        line[x] = _toned(line[x], table, k)


@njit(nogil=True, cache=True)
def _places(y, m, bits, kind, shape, bend, x_first, x_basis, y_first, y_basis, c, r, inside, lost):
    """Source positions of an output row's samples, for maps that mix the axes or are bent.

    ``c`` and ``r`` are (samples, W) int32, in 1/256 of a pixel; ``inside`` (samples, groups) says where all of 16
    pixels and their neighbours lie within the source; ``lost`` (W,) which pixels lie outside of it.
    """
    width, nodes, side = c.shape[1], bend.shape[2], 1 << bits
    rows, columns = shape
    for j in range(side):
        for i in range(side):
            for x in range(width):
                column, row = _place(m, np.int64(x), np.int64(y), bits, i, j, kind)
                c[j * side + i, x], r[j * side + i, x] = column, row
    if nodes:
        column = np.zeros((2, nodes), np.int64)
        for i in range(nodes):
            for j in range(4):
                for axis in range(2):
                    column[axis, i] += np.int64(bend[axis, y_first[y] + j, i]) * y_basis[y, j]
        for x in range(width):
            dx = dy = np.int64(1 << 19)
            for i in range(4):
                dx += column[0, x_first[x] + i] * x_basis[x, i]
                dy += column[1, x_first[x] + i] * x_basis[x, i]
            # Two weights of 1/1024 each.
            for i in range(side * side):
                c[i, x] += dx >> 20
                r[i, x] += dy >> 20
    for x in range(width):
        # The middle of the samples is the pixel's own place, but for half of 1/256 that rounding may add.
        last = side * side - 1
        lost[x] = _outside((c[0, x] + c[last, x] + 1) >> 1, columns) | _outside((r[0, x] + r[last, x] + 1) >> 1, rows)
    if kind == warp.NEAREST:
        for x in range(width):
            c[0, x], r[0, x] = (c[0, x] + 128) & -256, (r[0, x] + 128) & -256
    # Four bytes are read at once, so the last columns count as outside.
    last_column, last_row = np.int32((columns - 4) << 8), np.int32((rows - 1) << 8)
    for i in range(side * side):
        for g in range(inside.shape[1]):
            within = True
            for x in range(g * warp_lines.GROUP, (g + 1) * warp_lines.GROUP):
                if x < width:
                    within &= (0 <= c[i, x]) & (c[i, x] < last_column) & (0 <= r[i, x]) & (r[i, x] < last_row)
                else:
                    within = False
            inside[i, g] = within


@njit(nogil=True, cache=True)
def _sampled(plane, c, r, inside, border, total, line):
    """Grey values, float32, of an output row: the mean of its samples."""
    count, width = c.shape
    pitch, origin = np.int64(plane.shape[1]), _u(plane.ctypes.data)
    total[:] = 0
    for i in range(count):
        for g in range(inside.shape[1]):
            x0 = g * warp_lines.GROUP
            if inside[i, g]:
                for j in range(warp_lines.GROUP):
                    x = x0 + j
                    wx, wy = c[i, x] & np.int32(255), r[i, x] & np.int32(255)
                    at = origin + _u(np.int64(r[i, x] >> 8) * pitch + np.int64(c[i, x] >> 8))
                    top, low = warp_lines.get_int(at), warp_lines.get_int(at + _u(pitch))
                    mixed_top = np.int32((top & 255) * (256 - wx) + ((top >> 8) & 255) * wx)
                    mixed_low = np.int32((low & 255) * (256 - wx) + ((low >> 8) & 255) * wx)
                    total[x] += np.int32(mixed_top * (256 - wy) + mixed_low * wy)
            else:
                for x in range(x0, min(x0 + warp_lines.GROUP, width)):
                    total[x] += np.int32(_sample(plane, np.int64(c[i, x]), np.int64(r[i, x]), border))
    # Up to 16 values of 24 bits are summed exactly, and rounded once.
    part = np.float32(2.0**-16 / count)
    for x in range(width):
        line[x] = np.float32(total[x]) * part


@njit(inline="always")
def _plane(stack, channel, shape):
    """A channel of contiguous pixels at an address; for a channel that is left out, any."""
    return carray(_bytes(stack + _u(max(channel, 0) * shape[0] * shape[1])), shape)


@njit(nogil=True, cache=True)
def _prepare(plane, blur, blurred, turned, prepared):
    """Blur and transpose one channel into scratch memory, where that is asked for; the address of the result."""
    if blur.size > 1:
        blur_plane(plane, blur, blurred)
        if turned:
            _transposed(blurred, prepared)
            return _u(prepared.ctypes.data)
        return _u(blurred.ctypes.data)
    if turned:
        _transposed(plane, prepared)
        return _u(prepared.ctypes.data)
    return _u(plane.ctypes.data)


# What follows makes rows by addresses and whole arrays. A slice would be counted as a reference, and counting waits
# for all stores that are on their way past the cache: it took more than half of the time.


def _make_kernel(kind: str, vectors: bool):
    """The loop over a site for one kind of output."""
    passing, simple = warp_lines.finish16(kind, True), warp_lines.finish16(kind, False)
    copy, pixel = warp_lines.copy_pixel(kind), _u(warp_lines.SIZES[kind])
    size = _u(warp_lines.SIZES[kind] * warp_lines.GROUP)
    raw = kind == "uint8"

    @njit(nogil=True, cache=True)
    def kernel(stack, shape, out, direct, a, x_first_basis, x_basis, y_first_basis, y_basis):
        m, sampling, order, fill, center, scale = a.matrix, a.sampling, a.order, a.fill, a.center, a.scale
        table, box, erase, noise, key, flat, shift = a.table, a.box, a.erase, a.noise, a.key, a.flat, a.shift
        bend, blur = a.bend, a.blur
        filtering, border = sampling[0], sampling[1]
        channels, height, width = out.shape
        separable = bend.shape[2] == 0 and ((m[1] == 0 and m[3] == 0) or (m[0] == 0 and m[4] == 0))
        turned = separable and m[0] == 0 and m[4] == 0
        rows, columns = (shape[1], shape[0]) if turned else shape
        # Output columns run along the lines of the plane that is read, which for turned maps is the transposed one.
        if turned:
            x_first, x_weights = warp.taps(m[5], m[3], width, filtering)
            y_first, y_weights = warp.taps(m[2], m[1], height, filtering)
        else:
            x_first, x_weights = warp.taps(m[2], m[0], width, filtering)
            y_first, y_weights = warp.taps(m[5], m[4], height, filtering)
        # Rows and columns of the output that lie within the source.
        top, bottom, first, end = 0, height, 0, width
        if separable and border == warp.CONSTANT:
            first, end = warp.span(m[5], m[3], width, columns) if turned else warp.span(m[2], m[0], width, columns)
            top, bottom = warp.span(m[2], m[1], height, rows) if turned else warp.span(m[5], m[4], height, rows)
        left = right = 0
        if separable:
            for x in range(width):
                if border != warp.REFLECT:
                    # Beyond a whole row of taps nothing changes any more.
                    x_first[x] = min(max(x_first[x], -x_weights.shape[1]), columns)
                left = max(left, -np.int64(x_first[x]))
                right = max(right, np.int64(x_first[x]) + x_weights.shape[1] - columns)
        grouped, bases, lanes, pairs = warp_lines.grouped(x_first, x_weights)
        grouped = grouped and vectors

        zero = left + _SPARE
        line = np.zeros(zero + columns + right + _SPARE, np.int16)
        mixed = _u(line.ctypes.data + 2 * zero)
        steps = _u((width + warp_lines.GROUP - 1) // warp_lines.GROUP)
        values, finished = np.zeros(steps * warp_lines.GROUP, np.float32), np.zeros(steps * warp_lines.GROUP, out.dtype)
        origin, buffer = _u(values.ctypes.data), _u(finished.ctypes.data)
        y_weight, y_taps = _u(y_weights.ctypes.data), y_weights.shape[1]
        target, pixel_pitch = _u(out.ctypes.data), _u(out.strides[2])
        plane_pitch, pitch = _u(out.strides[0]), _u(out.strides[1])
        base, lane, pair = _u(bases.ctypes.data), _u(lanes.ctypes.data), _u(pairs.ctypes.data)
        halves = _u(bases.shape[1])

        # Contiguous planes are made one by one. Interleaved channels go row by row, so that a line of memory is
        # completed while it is in the cache; so do maps whose positions take long to find and serve all channels.
        by_planes = direct and separable and flat.shape[0] == 0
        outer, inner = (channels, 1) if by_planes else (height, channels)
        slots = 1 if by_planes else channels
        prepared = np.empty((slots, rows, columns + _SPARE) if turned else (slots, 0, 0), np.uint8)
        blurred = np.empty((slots, shape[0], shape[1]) if blur.size > 1 else (slots, 0, 0), np.uint8)
        planes = np.zeros(channels, np.uint64)
        line_pitch = _u(columns + _SPARE if turned else columns)
        lit = width if flat.shape[0] else 0
        nodes, parts = np.empty((2, lit), np.int32), np.empty((2, lit), np.float32)
        bits = _samples(m, filtering)
        count = 0 if separable else 1 << (2 * bits)
        c, r = np.empty((count, width), np.int32), np.empty((count, width), np.int32)
        total = np.empty(width, np.int32)
        inside, lost = np.empty((count, np.int64(steps)), np.bool_), np.empty(width, np.bool_)
        for o in range(outer):
            if not separable:
                _places(
                    o,
                    m,
                    bits,
                    filtering,
                    shape,
                    bend,
                    x_first_basis,
                    x_basis,
                    y_first_basis,
                    y_basis,
                    c,
                    r,
                    inside,
                    lost,
                )
            if flat.shape[0]:
                _lit(o, m, flat.shape[1:], shift, nodes, parts)
            for i in range(inner):
                k, y0, y1 = (o, 0, height) if by_planes else (i, o, o + 1)
                if y0 == 0:
                    slot = 0 if by_planes else k
                    source = _plane(stack, order[k], shape)
                    planes[k] = _prepare(source, blur, blurred[slot], turned, prepared[slot])
                plane = planes[k]
                for y in range(y0, y1):
                    m_k, s_k = center[k], scale[k]
                    start = np.uint32((k * height + y) * width)
                    if order[k] < 0:
                        values[:] = 0
                        m_k, s_k = np.float32(0), np.float32(1)
                    else:
                        if separable:
                            weights = y_weight + _u(2 * y * y_taps)
                            _mixed(plane, rows, columns, line_pitch, mixed, y_first[y], weights, y_taps, border)
                            _pad(mixed, columns, -left, 0, border)
                            _pad(mixed, columns, columns, columns + right, border)
                            if grouped:
                                warp_lines.groups(mixed, base, lane, pair, steps, halves, origin)
                            else:
                                warp_lines.plain_row(mixed, x_first, x_weights, values)
                        else:
                            source = carray(_bytes(plane), shape)
                            _sampled(source, c, r, inside, border, total, values)
                        if flat.shape[0]:
                            _shade(values, flat, k, nodes, parts)
                        if noise.shape[0]:
                            _add_noise(values, width, start, noise, k, key)
                        if border == warp.CONSTANT:
                            if y < top or y >= bottom:
                                values[:] = fill[k]
                            values[:first] = fill[k]
                            values[end:] = fill[k]
                            if not separable:
                                for x in range(width):
                                    values[x] = fill[k] if lost[x] else values[x]
                        if not raw and table.shape[0]:
                            _tone(values, width, table, k)
                            m_k, s_k = np.float32(0), np.float32(1)
                        if box[0] <= y < box[1] and erase[0] == 0 and erase[1] == 0 and not raw:
                            # What the normalisation makes zero of.
                            values[box[2] : box[3]] = m_k
                        elif box[0] <= y < box[1]:
                            if not raw:
                                for x in range(width):
                                    values[x] = (values[x] - m_k) * s_k
                                m_k, s_k = np.float32(0), np.float32(1)
                            _erase(values, box[2], box[3], start, erase, key)
                    if raw:
                        for x in range(width):
                            values[x] = min(max(values[x], np.float32(0)), np.float32(255))
                    if direct:
                        goal = target + _u(k) * plane_pitch + _u(y) * pitch
                        for g in range(steps):
                            passing(origin + _u(64) * g, goal + size * g, m_k, s_k)
                    else:
                        for g in range(steps):
                            simple(origin + _u(64) * g, buffer + size * g, m_k, s_k)
                        goal = target + _u(k) * plane_pitch + _u(y) * pitch
                        for x in range(_u(width)):
                            copy(buffer + pixel * x, goal + pixel_pitch * x)
        if direct:
            fused_lines.fence()
        # Arrays whose addresses alone are used above would be freed before, if nothing used them here.
        return (
            line.size
            + y_weights.size
            + bases.size
            + lanes.size
            + pairs.size
            + prepared.size
            + blurred.size
            + finished.size
        )

    return kernel


_KERNELS = {
    (kind, vectors): _make_kernel(kind, vectors) for kind in warp_lines.SIZES for vectors in {False, warp_lines.VECTORS}
}


def _float_bits(out):
    return out.view(np.uint16) if out.dtype == np.float16 else out


def augment_site(stack, out, augmentation: Augmentation, vectors: bool = warp_lines.VECTORS):
    """Augment one site. Releases the GIL.

    Parameters
    ----------
    stack : (C', H, W) uint8
        The decoded channels; contiguous, or a copy is made.
    out : (C, H', W') float32, float16, uint16 or uint8
        Written in full, with any strides; fastest where rows are contiguous, aligned to 16 pixels and a multiple of 16
        pixels long. uint16 stands for the bits of bfloat16. With uint8, values are rounded and not normalised.
    augmentation : Augmentation
    vectors : bool
        Use the instructions that this processor may have; the result is the same without.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit: compiled code does not check bounds, so this is checked first.
    """
    a = augmentation
    if stack.ndim != 3 or out.ndim != 3 or stack.dtype != np.uint8:
        raise ValueError(
            f"stack must be (C, H, W) uint8, got {stack.dtype}{stack.shape}, and out (C, H, W), got {out.shape}"
        )
    kind = _KINDS.get(out.dtype)
    if kind is None:
        raise ValueError(f"out must be float32, float16, uint16 (bits of bfloat16) or uint8, got {out.dtype}")
    _check(a, stack.shape[0], out.shape)
    height, width = out.shape[1:]
    pixel = warp_lines.SIZES[kind]
    line = warp_lines.GROUP * pixel
    direct = (
        width % warp_lines.GROUP == 0
        and out.strides[2] == pixel
        and min(out.strides) > 0
        and out.strides[0] % line == out.strides[1] % line == out.ctypes.data % line == 0
    )
    stack = np.ascontiguousarray(stack)
    nodes = a.bend.shape[2]
    x_basis, y_basis = (warp.basis(n, nodes) if nodes else _NO_BASIS for n in (width, height))
    kernel = _KERNELS[kind, vectors and warp_lines.VECTORS]
    kernel(_u(stack.ctypes.data), stack.shape[1:], _float_bits(out), direct, a, *x_basis, *y_basis)


_NO_BASIS = np.zeros(0, np.int32), np.zeros((0, 4), np.int32)
_KINDS = {
    np.dtype(np.uint8): "uint8",
    np.dtype(np.float32): "float32",
    np.dtype(np.float16): "float16",
    np.dtype(np.uint16): "bfloat16",
}


def _check(a: Augmentation, sources: int, shape: tuple[int, ...]) -> None:
    channels, height, width = shape
    expected = {
        "matrix": ((6,), np.int64),
        "sampling": ((2,), np.int64),
        "order": ((channels,), np.int64),
        "fill": ((channels,), np.float32),
        "center": ((channels,), np.float32),
        "scale": ((channels,), np.float32),
        "table": ((channels if len(a.table) else 0, tone.TABLE), np.float32),
        "box": ((4,), np.int64),
        "erase": ((2,), np.float32),
        "noise": ((channels if len(a.noise) else 0, 2), np.float32),
        "key": ((2,), np.uint32),
        "flat": ((channels if len(a.flat) else 0, *a.flat.shape[1:]), np.float32),
        "bend": ((2, *a.bend.shape[2:] * 2), np.int32),
        "blur": (a.blur.shape, np.int32),
        "steps": ((channels if len(a.steps) else 0,), np.int64),
    }
    for name, (size, dtype) in expected.items():
        array = getattr(a, name)
        if array.shape != size or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"{name} must be contiguous {np.dtype(dtype)}{size}, got {array.dtype}{array.shape}")
    if len(a.order) and not -1 <= a.order.min() <= a.order.max() < sources:
        raise ValueError(f"order must be -1 to {sources - 1}, got {a.order}")
    y0, y1, x0, x1 = a.box
    if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
        raise ValueError(f"box {a.box} does not lie within {height} x {width} pixels")
    if len(a.flat) and (min(a.flat.shape[1:]) < 2 or not 0 <= a.shift <= 16):
        raise ValueError("an illumination field needs at least 2 x 2 nodes, 1 to 65536 pixels apart")
    if 0 < a.bend.shape[2] < 4:
        raise ValueError(f"an elastic deformation needs at least 4 x 4 control points, got {a.bend.shape[2]}")
    if max(height, width) >= 1 << 16 or np.abs(a.matrix).max() >= 1 << 52:
        raise ValueError("an output is at most 65535 pixels on a side, and a geometry's coefficients below 2^20")
