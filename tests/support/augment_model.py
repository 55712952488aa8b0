"""What :mod:`rxrx_kernels.augment.site` documents, in NumPy, whole images at a time and without any of its code."""

import numpy as np
from rxrx_kernels.augment.noise import NORMAL
from rxrx_kernels.augment.site import plain
from scipy import ndimage

f32 = np.float32
NEAREST, BILINEAR, ANTIALIAS = 0, 1, 2
CONSTANT, EDGE, REFLECT = 0, 1, 2


def augmentation(channels, **fields):
    """No augmentation but these fields, of whatever dtype."""
    base = plain(channels)
    kinds = {name: getattr(base, name).dtype for name in fields if name != "flat_log2"}
    return base._replace(
        **{n: int(v) if n == "flat_log2" else np.ascontiguousarray(v, kinds[n]) for n, v in fields.items()}
    )


def fma(a, b, c):
    """A * b + c of float32 with one rounding, but for the rarest of ties."""
    wide = np.longdouble
    return (np.asarray(a, wide) * np.asarray(b, wide) + np.asarray(c, wide)).astype(f32)


def wrapped(i, size, border):
    """Source pixels that stand for pixels i."""
    if border != REFLECT or size == 1:
        return np.clip(i, 0, size - 1)
    return size - 1 - np.abs(i % (2 * size - 2) - (size - 1))


def bits_of_samples(a):
    """Two to the power of this are the samples along an axis of a pixel of a map that mixes the axes."""
    m = np.abs(a.matrix / 2.0**32)
    reached = max(m[0] + m[1], m[3] + m[4])
    return 0 if a.sampling[0] != ANTIALIAS or reached <= 1.5 else 1 if reached <= 3 else 2


def positions(a, height, width, bits=0, i=0, j=0, half=1 << 23):
    """Columns and rows of one sample of all pixels, in 1/256, without the elastic part."""
    m = [int(value) for value in a.matrix]
    y, x = np.mgrid[:height, :width].astype(np.int64)
    du, dv = 2 * i + 1 - 2**bits, 2 * j + 1 - 2**bits
    c = (m[0] * x + m[1] * y + m[2] + ((m[0] * du + m[1] * dv) >> (bits + 1)) + half) >> 24
    r = (m[3] * x + m[4] * y + m[5] + ((m[3] * du + m[4] * dv) >> (bits + 1)) + half) >> 24
    return c, r


def displacements(a, height, width, basis):
    """Elastic part of the positions, in 1/256; ``basis`` gives the splines' places and weights."""
    moved = np.zeros((2, height, width), np.int64)
    nodes = a.displacement.shape[1]
    if nodes:
        (xf, xb), (yf, yb) = basis(width, nodes), basis(height, nodes)
        for p in range(4):
            for q in range(4):
                weights = yb[:, p].astype(np.int64)[:, None] * xb[:, q]
                moved += a.displacement[:, (yf + p)[:, None], xf + q].astype(np.int64) * weights
        moved = (moved + 2**19) >> 20
    return moved


def bilinear(plane, c, r, border):
    """Values in 1/65536 at positions in 1/256."""
    rows, columns = plane.shape
    plane, u, v = plane.astype(np.int64), c & 255, r & 255
    c0, c1 = wrapped(c >> 8, columns, border), wrapped((c >> 8) + 1, columns, border)
    r0, r1 = wrapped(r >> 8, rows, border), wrapped((r >> 8) + 1, rows, border)
    upper = plane[r0, c0] * (256 - u) + plane[r0, c1] * u
    lower = plane[r1, c0] * (256 - u) + plane[r1, c1] * u
    return upper * (256 - v) + lower * v


def grey(plane, a, height, width, basis=None):
    """Grey values (float64, exact) of one channel, and which pixels lie outside."""
    plane = plane.astype(np.int64)
    if a.blur.size > 1:
        for axis in (0, 1):
            plane = ndimage.correlate1d(plane, a.blur.astype(np.int64), axis, mode="mirror")
        plane = (plane + 2**15) >> 16
    kind, border = a.sampling
    bits, moved = bits_of_samples(a), displacements(a, height, width, basis)
    total, middle = np.zeros((height, width), np.int64), []
    for j in range(2**bits):
        for i in range(2**bits):
            c, r = positions(a, height, width, bits, i, j, 2**12 if kind == NEAREST else 2**23)
            c, r = c + moved[0], r + moved[1]
            middle.append((c, r))
            if kind == NEAREST:
                c, r = (c + 128) >> 8 << 8, (r + 128) >> 8 << 8
            total += bilinear(plane, c, r, border)
    c, r = ((first + last + 1) >> 1 for first, last in zip(middle[0], middle[-1]))
    rows, columns = plane.shape
    lost = (c < -128) | (c >= 256 * columns - 128) | (r < -128) | (r >= 256 * rows - 128)
    return total / 65536 / 4**bits, lost & (border == CONSTANT)


def light(a, k, height, width):
    """Factors of an illumination field, float32."""
    c, r = positions(a, height, width)
    parts = []
    for q, nodes in ((c, a.flat.shape[2]), (r, a.flat.shape[1])):
        place = np.clip(q, 0, (nodes - 1) << (8 + a.flat_log2))
        node = np.minimum(place >> (8 + a.flat_log2), nodes - 2)
        parts.append((node, (place / 2.0 ** (8 + a.flat_log2) - node).astype(f32)))
    (i, u), (j, v) = parts
    field = a.flat[k]
    upper = fma(u, field[j, i + 1] - field[j, i], field[j, i])
    lower = fma(u, field[j + 1, i + 1] - field[j + 1, i], field[j + 1, i])
    return fma(v, lower - upper, upper)


def normals(count, low, high):
    """Normal numbers of pixels 0 to count - 1 under a key."""
    mask = 2**32 - 1
    h = np.arange(count, dtype=np.uint64) ^ np.uint64(low)
    for _ in range(2):
        h ^= h >> np.uint64(16)
        h = (h * np.uint64(0x7FEB352D)) & np.uint64(mask)
        h ^= h >> np.uint64(15)
        h = (h * np.uint64(0x846CA68B)) & np.uint64(mask)
        h ^= h >> np.uint64(16)
        h = (h + np.uint64(high)) & np.uint64(mask)
    return NORMAL[h >> np.uint64(20)]


def augmented(stack, a, height, width, raw=False, basis=None):
    """The whole of it as float32; ``raw`` for output in uint8."""
    channels = len(a.order)
    out = np.zeros((channels, height, width), f32)
    camera = normals(channels * height * width, *a.key).reshape(out.shape) if len(a.noise) else None
    eraser = normals(channels * height * width, a.key[0], a.key[1] ^ 0x5BD1E995).reshape(out.shape)
    inside = (slice(*a.box[:2]), slice(*a.box[2:]))
    for k, source in enumerate(a.order):
        if source < 0:
            continue
        value, lost = grey(stack[source], a, height, width, basis)
        value = value.astype(f32)
        if len(a.flat):
            value = value * light(a, k, height, width)
        if len(a.noise):
            sigma, shot = a.noise[k]
            deviation = np.sqrt(fma(shot, np.maximum(value, 0), sigma * sigma))
            value = np.clip(fma(camera[k], deviation, value), 0, 255)
        value[lost] = a.fill[k]
        if not raw and len(a.lut):
            value = np.clip(value, 0, 255)
            i = value.astype(int)
            value = fma(value - i.astype(f32), a.lut[k][i + 1] - a.lut[k][i], a.lut[k][i])
        elif not raw:
            value = (value - a.center[k]) * a.scale[k]
        value[inside] = fma(eraser[k], a.erase[1], a.erase[0])[inside]
        out[k] = np.clip(value, 0, 255) if raw else value
    return np.floor(out + f32(0.5)) if raw else out
