"""The compiled loops of synthetic rendering: place cells, assign pixels to cells, draw, shade, expose.

All lengths are in real pixels: one pixel of a 512 x 512 RxRx1 image. A grid of another pitch (real pixels per grid
pixel) samples the same scene more coarsely. Tables are float64 with a row per object; pixel maps are float32. Nothing
uses fast-math, so the order of additions, and every byte, is fixed.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["expose", "nearest_cells", "paint_nuclei", "paint_spots", "paint_strokes", "place_cells", "shade"]

FAR = np.float32(9.0)  # the normalised distance of "no cell"


@njit(cache=True, nogil=True)
def place_cells(candidates: np.ndarray, density: np.ndarray, spacing: float, wanted: int, extent: float) -> np.ndarray:
    """Choose the candidates that become cells: in order, those that keep their distance from all before (Poisson disk).

    Parameters
    ----------
    candidates : (n, 2) float64
        Random positions (x, y).
    density : (n,) float64 in [0, 1]
        The lower it is, the larger is the distance kept. Below 0.05 nothing grows (a hole in the monolayer).
    spacing : float
        The distance kept at density 1.
    wanted : int
        The number of cells after which to stop.
    extent : float
        The side of the square field. It does not wrap around.

    Returns
    -------
    (m,) int64
        Indices of the candidates taken, m <= wanted.
    """
    side = max(1, int(extent / spacing))
    heads = np.full((side, side), -1, np.int64)
    following = np.full(candidates.shape[0], -1, np.int64)
    taken = np.empty(wanted, np.int64)
    count = 0
    for i in range(candidates.shape[0]):
        if count == wanted:
            break
        if density[i] < 0.05:
            continue
        x, y = candidates[i, 0], candidates[i, 1]
        keep = spacing * (1.6 - 0.6 * density[i])
        column, row = min(side - 1, int(x / extent * side)), min(side - 1, int(y / extent * side))
        free = True
        for r in range(max(0, row - 2), min(side, row + 3)):
            for c in range(max(0, column - 2), min(side, column + 3)):
                j = heads[r, c]
                while j >= 0 and free:
                    free = (candidates[j, 0] - x) ** 2 + (candidates[j, 1] - y) ** 2 >= keep * keep
                    j = following[j]
        if free:
            following[i] = heads[row, column]
            heads[row, column] = i
            taken[count] = i
            count += 1
    return taken[:count]


@njit(cache=True, nogil=True)
def nearest_cells(
    cells: np.ndarray,
    pitch: float,
    warp_x: np.ndarray,
    warp_y: np.ndarray,
    owner: np.ndarray,
    runner: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> None:
    """Find each pixel's nearest and next nearest cell, and its distance from both centres.

    The distance is elliptical, 1 at the cell's nominal edge. The warp fields displace the plane first, so no border is
    straight.

    Parameters
    ----------
    cells : (n, >= 5) float64, columns x, y, angle, semi-axis along, semi-axis across.
    pitch : float, real pixels a grid pixel.
    warp_x, warp_y : (H, W) float32, real pixels.
    owner, runner : (H, W) int32, written: the rows of the nearest and the next cell, -1 where no cell reaches.
    first, second : (H, W) float32, written: normalised distances.
    """
    height, width = owner.shape
    owner[:] = -1
    runner[:] = -1
    first[:] = FAR
    second[:] = FAR
    for k in range(cells.shape[0]):
        x, y, angle = cells[k, 0], cells[k, 1], cells[k, 2]
        along, across = cells[k, 3], cells[k, 4]
        cosine, sine = math.cos(angle), math.sin(angle)
        reach = 1.5 * max(along, across) + 6.0
        top, bottom = max(0, int((y - reach) / pitch)), min(height, int((y + reach) / pitch) + 2)
        left, right = max(0, int((x - reach) / pitch)), min(width, int((x + reach) / pitch) + 2)
        for i in range(top, bottom):
            for j in range(left, right):
                dx = j * pitch + warp_x[i, j] - x
                dy = i * pitch + warp_y[i, j] - y
                u = (dx * cosine + dy * sine) / along
                v = (dy * cosine - dx * sine) / across
                d = np.float32(math.sqrt(u * u + v * v))
                if d < first[i, j]:
                    second[i, j] = first[i, j]
                    runner[i, j] = owner[i, j]
                    first[i, j] = d
                    owner[i, j] = k
                elif d < second[i, j]:
                    second[i, j] = d
                    runner[i, j] = k


@njit(cache=True, nogil=True)
def paint_nuclei(nuclei: np.ndarray, pitch: float, chromatin: np.ndarray, light: np.ndarray, cover: np.ndarray) -> None:
    """Add every nucleus: its light, and the share of the pixel that it covers.

    Nuclei that overlap add up, as in a wide-field image.

    Parameters
    ----------
    nuclei : (n, 11) float64: x, y, angle, semi-axis along, across, brightness, chromatin contrast, then amplitude and
        phase of the outline's second and third harmonic.
    chromatin : (H, W) float32, a texture of unit variance.
    light, cover : (H, W) float32, added to; cover takes the maximum.
    """
    height, width = light.shape
    for k in range(nuclei.shape[0]):
        x, y, angle, along, across, bright, contrast = nuclei[k, :7]
        lobe2, phase2, lobe3, phase3 = nuclei[k, 7:11]
        cosine, sine = math.cos(angle), math.sin(angle)
        edge = 0.9 / math.sqrt(along * across) * max(1.0, pitch * 0.8)  # half the width of the soft rim
        reach = 1.5 * max(along, across) + 2 * pitch
        for i in range(max(0, int((y - reach) / pitch)), min(height, int((y + reach) / pitch) + 2)):
            for j in range(max(0, int((x - reach) / pitch)), min(width, int((x + reach) / pitch) + 2)):
                dx, dy = j * pitch - x, i * pitch - y
                u = (dx * cosine + dy * sine) / along
                v = (dy * cosine - dx * sine) / across
                rho = math.sqrt(u * u + v * v)
                if rho > 1.5:
                    continue
                phi = math.atan2(v, u)
                rho *= 1.0 + lobe2 * math.cos(2 * phi + phase2) + lobe3 * math.cos(3 * phi + phase3)
                t = min(1.0, max(0.0, 0.5 + (1.0 - rho) / (2.5 * edge)))
                if t <= 0.0:
                    continue
                soft = t * t * (3.0 - 2.0 * t)
                dome = 0.72 + 0.28 * math.sqrt(max(0.0, 1.0 - rho * rho))  # thicker in the middle
                grain = math.exp(contrast * chromatin[i, j])  # a few bright clumps, no dark holes
                light[i, j] += np.float32(bright * soft * dome * grain)
                cover[i, j] = max(cover[i, j], np.float32(soft))


@njit(cache=True, nogil=True)
def paint_spots(spots: np.ndarray, pitch: float, out: np.ndarray) -> None:
    """Add round spots, whose peak does not depend on the pitch unless they are smaller than a pixel.

    Parameters
    ----------
    spots : (n, 5) float64: x, y, sigma (real pixels), peak, and the power that flattens the top: 1 a Gaussian, 3 nearly
        a disc.
    out : (H, W) float32, added to.
    """
    height, width = out.shape
    for k in range(spots.shape[0]):
        x, y, sigma, peak, power = spots[k, 0], spots[k, 1], spots[k, 2], spots[k, 3], spots[k, 4]
        wide = math.sqrt(sigma * sigma + 0.16 * (pitch * pitch - 1.0)) if pitch > 1.0 else sigma
        peak *= (sigma / wide) ** 2
        reach = 3.0 * wide
        scale = 0.5 / (wide * wide)
        for i in range(max(0, int((y - reach) / pitch)), min(height, int((y + reach) / pitch) + 2)):
            for j in range(max(0, int((x - reach) / pitch)), min(width, int((x + reach) / pitch) + 2)):
                square = (j * pitch - x) ** 2 + (i * pitch - y) ** 2
                out[i, j] += np.float32(peak * math.exp(-((scale * square) ** power)))


@njit(cache=True, nogil=True)
def paint_strokes(
    strokes: np.ndarray, cells: np.ndarray, owner: np.ndarray, pitch: float, wiggle: np.ndarray, out: np.ndarray
) -> None:
    """Add thin curved lines: actin fibres, mitochondria, Golgi ribbons.

    At each step a stroke advances by a grid pixel, and at least by a real one, and adds its light to the four nearest
    pixels. So a line's light is the same at every pitch. The point-spread function later gives it its width. A stroke
    belongs to a cell: over that cell's nucleus, and outside of the cell, only a share of its light stays.

    Parameters
    ----------
    strokes : (n, 10) float64: x, y, direction, length, curvature (radian a real pixel), roughness (radian a step),
        light a real pixel, the cell's row, the share of light that stays over the nucleus, and the share outside the
        cell.
    cells : (m, >= 10) float64; columns 5 to 9 are the nucleus: x, y, angle, semi-axis along, semi-axis across.
    owner : (H, W) int32, from `nearest_cells`.
    wiggle : (w,) float64 standard normal numbers; stroke k reads them from 131 k on, modulo w.
    out : (H, W) float32, added to.
    """
    height, width = out.shape
    step = max(1.0, pitch)
    for k in range(strokes.shape[0]):
        x, y, angle, length = strokes[k, 0], strokes[k, 1], strokes[k, 2], strokes[k, 3]
        curvature, rough, light = strokes[k, 4], strokes[k, 5], strokes[k, 6]
        cell, over, outside = int(strokes[k, 7]), strokes[k, 8], strokes[k, 9]
        nx, ny, na, nb = cells[cell, 5], cells[cell, 6], cells[cell, 8], cells[cell, 9]
        cosine, sine = math.cos(cells[cell, 7]), math.sin(cells[cell, 7])
        steps = max(1, int(length / step + 0.5))
        light *= step / (pitch * pitch)
        for s in range(steps):
            angle += curvature * step + rough * math.sqrt(step) * wiggle[(131 * k + s) % wiggle.size]
            x += step * math.cos(angle)
            y += step * math.sin(angle)
            gx, gy = x / pitch, y / pitch
            # Numba's floor returns a float.
            j, i = int(math.floor(gx)), int(math.floor(gy))  # noqa: RUF046
            if i < 0 or j < 0 or i + 1 >= height or j + 1 >= width:
                continue
            along = (x - nx) * cosine + (y - ny) * sine
            across = (y - ny) * cosine - (x - nx) * sine
            inside = (along / na) ** 2 + (across / nb) ** 2 < 1.0
            here = light * min(1.0, min(s + 1.0, steps - s) / (0.2 * steps + 1.0))  # thin ends
            if inside:
                here *= over
            if owner[i, j] != cell:
                here *= outside
            fx, fy = gx - j, gy - i
            out[i, j] += np.float32(here * (1 - fx) * (1 - fy))
            out[i, j + 1] += np.float32(here * fx * (1 - fy))
            out[i + 1, j] += np.float32(here * (1 - fx) * fy)
            out[i + 1, j + 1] += np.float32(here * fx * fy)


@njit(cache=True, nogil=True)
def shade(
    cells: np.ndarray,
    stain: np.ndarray,
    pitch: float,
    owner: np.ndarray,
    runner: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    nuclear: np.ndarray,
    cover: np.ndarray,
    textures: np.ndarray,
    actin: np.ndarray,
    mitochondria: np.ndarray,
    golgi: np.ndarray,
    nucleoli: np.ndarray,
    style: np.ndarray,
    out: np.ndarray,
) -> None:
    """Compute the light of every dye at every pixel, before optics and camera.

    Parameters
    ----------
    cells : (n, 12) float64: x, y, angle, semi-axes, the nucleus (x, y, angle, semi-axes), then the direction (x, y) in
        which the cell's organelles lean.
    stain : (n, 6) float64, how strongly each cell took each dye (about 1).
    owner, runner, first, second : from `nearest_cells`.
    nuclear, cover : from `paint_nuclei`.
    textures : (3, H, W) float32 of unit variance: reticulum, cloud, grain.
    actin, mitochondria, golgi, nucleoli : (H, W) float32 maps of strokes and spots.
    style : (17,) float64, from ``_style`` of `rxrx_fast.synth.render`.
    out : (6, H, W) float32, written, arbitrary units.
    """
    height, width = owner.shape
    dye = np.empty(6)
    (
        er_reach,
        er_floor,
        er_contrast,
        actin_floor,
        ridge,
        fibre,
        mito_haze,
        mito_light,
        golgi_light,
        membrane_nucleus,
        rna_nucleus,
        crack,
        mito_reach,
        lean,
        er_hollow,
        dna_haze,
        actin_leak,
    ) = style
    for i in range(height):
        for j in range(width):
            nucleus = cover[i, j]
            k = owner[i, j]
            cloud = max(0.3, 1.0 + 0.16 * textures[1, i, j])
            if k < 0:
                for c in range(6):
                    out[c, i, j] = 0.0
                out[0, i, j] = nuclear[i, j]
                out[2, i, j] = fibre * actin[i, j]
                out[4, i, j] = mito_light * mitochondria[i, j]
                continue
            radius = math.sqrt(cells[k, 3] * cells[k, 4])
            d = first[i, j]
            t = min(1.0, max(0.0, (1.42 - d) / 0.58))
            body = t * t * (3.0 - 2.0 * t)
            border = 0.5 * (second[i, j] - d) * radius  # real pixels to the neighbour's side
            free = max(0.0, 1.05 - d) * radius
            # Cells overlap at their seam, so their stains blend over a few pixels.
            other = runner[i, j]
            share = 0.5 * math.exp(-border / 3.0) if other >= 0 else 0.0
            for c in range(6):
                dye[c] = stain[k, c] + share * (stain[max(other, 0), c] - stain[k, c])
            width_of_line = 1.2 + 0.25 * pitch
            line = math.exp(-((border / width_of_line) ** 2)) * min(1.0, body * 1.5)
            line = max(line, 0.5 * math.exp(-((free / width_of_line) ** 2)) * body)
            gap = 1.0 - crack * math.exp(-((border / 2.2) ** 2))

            dx, dy = j * pitch - cells[k, 5], i * pitch - cells[k, 6]
            cosine, sine = math.cos(cells[k, 7]), math.sin(cells[k, 7])
            along = (dx * cosine + dy * sine) / cells[k, 8]
            across = (dy * cosine - dx * sine) / cells[k, 9]
            rim = max(0.0, math.sqrt(along * along + across * across) - 1.0) * math.sqrt(cells[k, 8] * cells[k, 9])
            away = math.sqrt(dx * dx + dy * dy) + 4.0
            side = max(0.2, 1.0 + lean * (dx * cells[k, 10] + dy * cells[k, 11]) / away)

            # The ER follows the nucleus close by and the shape of the cell farther out.
            spread = 0.45 * rim + 0.55 * max(0.0, d * radius - math.sqrt(cells[k, 8] * cells[k, 9]))
            near = math.exp(-((spread / (er_reach * (0.5 + 0.5 * side) * (0.6 + 0.4 * cloud))) ** 1.6))
            reticulum = max(0.08, 1.0 + er_contrast * textures[0, i, j] * (0.4 + 0.8 * near) * (1.0 - 0.6 * nucleus))
            cytoplasm = body * gap * cloud * (er_floor + near * (0.6 + 0.4 * side))
            hollow = 1.0 - er_hollow * nucleus
            rim_light = 0.3 * math.exp(-((rim / 1.3) ** 2)) * (1.0 - 0.6 * nucleus)  # the nuclear envelope is ER
            grain = 1.0 + 0.16 * textures[2, i, j]

            out[0, i, j] = nuclear[i, j] + dna_haze * body * (0.6 + 0.4 * dye[0] * cytoplasm)
            out[1, i, j] = dye[1] * (cytoplasm * hollow * reticulum + rim_light * body)
            out[2, i, j] = (
                dye[2]
                * body
                * (actin_floor * cloud * grain * (0.75 + 0.4 * near) * (1.0 - 0.15 * nucleus) + ridge * line)
                + fibre * actin[i, j]
            )
            out[3, i, j] = dye[3] * (
                (cytoplasm * (1.0 - 0.9 * nucleus) * (0.25 + 0.75 * reticulum) + 0.7 * rim_light * body) * grain
                + nucleus * (rna_nucleus * grain + nucleoli[i, j])
            )
            band = math.exp(-rim / mito_reach)
            out[4, i, j] = dye[4] * (
                mito_haze * body * gap * cloud * (0.35 + band * side) * (1.0 - 0.6 * nucleus) * (0.4 + 0.6 * reticulum)
                + mito_light * mitochondria[i, j]
            )
            out[5, i, j] = (
                dye[5]
                * (
                    body * gap * cloud * grain * (0.5 + 0.3 * near)
                    + 0.55 * ridge * line * body
                    + membrane_nucleus * nucleus * grain
                    + golgi_light * golgi[i, j]
                )
                + actin_leak * fibre * actin[i, j]
            )


@njit(cache=True, nogil=True)
def expose(
    signal: np.ndarray,
    margin: int,
    level: float,
    offset: float,
    light: np.ndarray,
    shot: float,
    read: float,
    noise: np.ndarray,
    out: np.ndarray,
) -> None:
    """Apply the camera: illumination, background, photon and read noise, then eight bits.

    Parameters
    ----------
    signal : (H + 2 margin, W + 2 margin) float32, mean about 1.
    level : float, grey levels of a unit of signal.
    offset : float, the camera's background level.
    light : (6,) float64, the illumination as a polynomial of x and y in [-1, 1]: 1, x, y, x^2, x y, y^2.
    shot, read : float, variance a grey level, and read noise (standard deviation).
    noise : (H, W) float32 standard normal.
    out : (H, W) uint8, written.
    """
    height, width = out.shape
    for i in range(height):
        y = 2.0 * (i + 0.5) / height - 1.0
        for j in range(width):
            x = 2.0 * (j + 0.5) / width - 1.0
            field = light[0] + light[1] * x + light[2] * y + light[3] * x * x + light[4] * x * y + light[5] * y * y
            value = max(0.0, level * field * signal[i + margin, j + margin]) + offset
            value += math.sqrt(shot * value + read * read) * noise[i, j]
            out[i, j] = np.uint8(min(255.0, max(0.0, value + 0.5)))
