"""The cells of one synthetic site, as tables: their positions, their shapes, and everything drawn in them.

Every function samples from the generator it is given, in a fixed order. Lengths are in real pixels: one pixel of a
512 x 512 image. `rxrx_fast.synth.render_kernels` documents the tables' columns.
"""

from __future__ import annotations

import math

import numpy as np

from rxrx_fast.synth import render_kernels as kernels
from rxrx_fast.synth.phenotypes import Morphology

__all__ = [
    "fibres",
    "golgi",
    "granules_and_debris",
    "grow",
    "mitochondria",
    "nucleoli",
    "sum_of_waves",
    "waves",
]

NATIVE = 512  # pixels a side of a real image


def waves(rng: np.random.Generator, count: int, shortest: float, longest: float) -> np.ndarray:
    """Sample plane waves with periods in the given range of real pixels.

    Returns (count, 3) float64: wave vector (x, y; radian per real pixel) and phase.
    """
    k = 2 * np.pi / np.exp(rng.uniform(np.log(shortest), np.log(longest), count))
    angle, phase = rng.uniform(0, 2 * np.pi, (2, count))
    return np.stack([k * np.cos(angle), k * np.sin(angle), phase], 1)


def sum_of_waves(waves: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Evaluate a smooth field of about unit variance at the positions x, y."""
    total: np.ndarray = sum(np.cos(kx * x + ky * y + phase) for kx, ky, phase in waves)
    return total * math.sqrt(2 / len(waves))


def grow(rng: np.random.Generator, look: Morphology, density: float, extent: float) -> tuple[np.ndarray, ...]:
    """Place the cells of a square field and give each its shape.

    Returns the kernels' tables ``cells``, ``stain`` and ``nuclei``, and which cells have rounded up, (n,) bool.
    """
    wanted = max(1, int(look.count * density * (extent / NATIVE) ** 2 + rng.uniform()))
    candidates = rng.uniform(0, extent, (12 * wanted + 20, 2))
    patches = sum_of_waves(waves(rng, 6, 110.0, 400.0), candidates[:, 0], candidates[:, 1])
    crowd = np.clip(1 - look.holes * np.maximum(0.0, patches - 0.55) * 1.6, 0.0, 1.0)
    taken = kernels.place_cells(candidates, crowd, look.spacing / math.sqrt(density), wanted, extent)
    if not len(taken):
        taken = np.array([0])
    x, y = candidates[taken].T
    n = len(taken)

    grain = sum_of_waves(waves(rng, 4, 180.0, 700.0), x, y) * 0.9 + rng.uniform(
        0, np.pi
    )  # the direction that neighbours share
    angle = grain + (1 - look.alignment) * rng.uniform(-np.pi / 2, np.pi / 2, n)
    size = np.exp(0.10 * rng.standard_normal(n))
    radius = look.radius * density**-0.25 * (1.6 - 0.6 * crowd[taken]) * size * np.exp(0.08 * rng.standard_normal(n))
    stretch = np.sqrt(1 + (look.elongation - 1) * np.exp(0.35 * rng.standard_normal(n)))
    lean = rng.uniform(0, 2 * np.pi, n)
    off = 0.14 * radius * rng.uniform(0, 1, n)

    # A cell in division or death has rounded up: small, condensed, bright.
    round_up = rng.uniform(size=n) < look.rounded
    nucleus = look.nucleus * density**-0.12 * size**1.3 * np.where(round_up, 0.62, 1.0)
    long = np.sqrt(
        1 + (look.nucleus_elongation - 1) * np.exp(0.3 * rng.standard_normal(n)) * np.where(round_up, 1.8, 1.0)
    )
    nucleus_angle = angle + 0.35 * rng.standard_normal(n)
    nx, ny = x - off * np.cos(lean), y - off * np.sin(lean)
    cells = np.stack(
        [
            x,
            y,
            angle,
            radius * stretch,
            radius / stretch,
            nx,
            ny,
            nucleus_angle,
            nucleus * long,
            nucleus / long,
            np.cos(lean),
            np.sin(lean),
        ],
        1,
    )

    shared = 0.22 * rng.standard_normal((n, 1)) + 0.3 * round_up[:, None]
    stain = np.exp(shared + 0.16 * rng.standard_normal((n, 6)))
    stain[:, 1] *= np.exp(0.25 * np.maximum(0, rng.standard_normal(n)))  # a tail of cells that secrete much
    stain[:, 4] *= np.exp(0.3 * rng.standard_normal(n))
    stain[:, 2] **= 0.6  # actin and membrane run on from cell to cell
    stain[:, 5] **= 0.6

    def outline(k: int) -> list[np.ndarray]:
        return [
            look.lobes * abs(rng.standard_normal(k)),
            rng.uniform(0, 2 * np.pi, k),
            0.6 * look.lobes * abs(rng.standard_normal(k)),
            rng.uniform(0, 2 * np.pi, k),
        ]

    phase = rng.uniform(size=n)  # of the cell cycle: DNA doubles from G1 to G2
    bright = (
        stain[:, 0] ** 0.4
        * (0.85 + 0.35 * (phase > 0.7))
        * np.where(round_up, 2.2, 1.0)
        * np.exp(0.10 * rng.standard_normal(n))
    )
    contrast = look.chromatin * np.exp(0.25 * rng.standard_normal(n))
    nuclei = np.stack([nx, ny, nucleus_angle, nucleus * long, nucleus / long, bright, contrast, *outline(n)], 1)
    twin = rng.uniform(size=n) < look.multinucleated
    second = nuclei[twin].copy()
    apart, towards = 1.7 * nucleus[twin], rng.uniform(0, 2 * np.pi, int(twin.sum()))
    second[:, 0] += apart * np.cos(towards)
    second[:, 1] += apart * np.sin(towards)
    second[:, 3:5] *= 0.9
    second[:, 7:] = np.stack(outline(len(second)), 1)
    return cells, stain, np.concatenate([nuclei, second]), round_up


def _repeat(rng: np.random.Generator, mean: float, cells: np.ndarray) -> np.ndarray:
    """Repeat each cell's row number about ``mean`` times: the cells that strokes or spots belong to."""
    return np.repeat(np.arange(len(cells)), rng.poisson(mean, len(cells)))


def fibres(rng: np.random.Generator, look: Morphology, cells: np.ndarray) -> np.ndarray:
    """Sample stress fibres, which leave two or three focal points at the cell's rim and run along the cell."""
    k = _repeat(rng, look.fibres, cells)
    n = len(k)
    x, y, angle, along, across = cells[k, :5].T
    foci = rng.uniform(-1, 1, (len(cells), 3, 2))[k, rng.integers(0, 3, n)]
    loose = rng.uniform(size=n) < 0.45  # the others converge on a focus
    u = np.where(loose, rng.uniform(-0.9, 0.9, n), np.sign(foci[:, 0]) * 0.85)
    v = np.where(loose, rng.uniform(-0.85, 0.85, n), 0.7 * foci[:, 1])
    u, v = u * along, v * across
    heading = (
        angle + look.fibre_disorder * rng.standard_normal(n) * np.where(loose, 1.0, 1.6) + np.where(u > 0, np.pi, 0.0)
    )
    length = look.fibre_length * np.exp(0.4 * rng.standard_normal(n))
    curvature = 0.005 * rng.standard_normal(n)
    light = look.fibre_light * np.exp(0.75 * rng.standard_normal(n) - 0.25)
    return np.stack(
        [
            x + u * np.cos(angle) - v * np.sin(angle),
            y + u * np.sin(angle) + v * np.cos(angle),
            heading,
            length,
            curvature,
            np.full(n, 0.008),
            light,
            k,
            np.full(n, 0.8),
            np.full(n, 0.55),
        ],
        1,
    )


def mitochondria(rng: np.random.Generator, look: Morphology, cells: np.ndarray) -> np.ndarray:
    """Sample a net of curved lines around the nucleus, denser on the side to which the cell leans."""
    k = _repeat(rng, look.mitochondria, cells)
    n = len(k)
    lean = np.arctan2(cells[k, 11], cells[k, 10])
    around = np.where(rng.uniform(size=n) < 0.7, lean + 0.9 * rng.standard_normal(n), rng.uniform(0, 2 * np.pi, n))
    nx, ny, nucleus_angle, na, nb = cells[k, 5:10].T
    rho = 1.05 + rng.exponential(look.mito_reach, n) / np.sqrt(na * nb)
    rho = np.minimum(rho, 0.95 * np.sqrt(cells[k, 3] * cells[k, 4] / (na * nb)))
    u, v = rho * na * np.cos(around - nucleus_angle), rho * nb * np.sin(around - nucleus_angle)
    heading = around + np.where(rng.uniform(size=n) < 0.75, np.pi / 2, 0.0) + 0.45 * rng.standard_normal(n)
    length = look.mito_length * np.exp(0.45 * rng.standard_normal(n))
    light = np.exp(0.5 * rng.standard_normal(n) - 0.1)
    return np.stack(
        [
            nx + u * np.cos(nucleus_angle) - v * np.sin(nucleus_angle),
            ny + u * np.sin(nucleus_angle) + v * np.cos(nucleus_angle),
            heading,
            length,
            0.03 * rng.standard_normal(n),
            np.full(n, look.mito_roughness),
            light,
            k,
            np.full(n, 0.15),
            np.full(n, 0.08),
        ],
        1,
    )


def golgi(rng: np.random.Generator, look: Morphology, cells: np.ndarray) -> np.ndarray:
    """Sample a cap of vesicles on one side of the nucleus: spots whose arc is the Golgi's spread."""
    k = _repeat(rng, look.golgi_spots, cells)
    n = len(k)
    around = np.arctan2(cells[k, 11], cells[k, 10]) + look.golgi_spread * rng.standard_normal(n)
    nx, ny, nucleus_angle, na, nb = cells[k, 5:10].T
    rho = 1.05 + rng.exponential(0.12 + 0.14 * look.golgi_spread, n)
    u, v = rho * na * np.cos(around - nucleus_angle), rho * nb * np.sin(around - nucleus_angle)
    return np.stack(
        [
            nx + u * np.cos(nucleus_angle) - v * np.sin(nucleus_angle),
            ny + u * np.sin(nucleus_angle) + v * np.cos(nucleus_angle),
            1.0 * np.exp(0.25 * rng.standard_normal(n)),
            np.exp(0.5 * rng.standard_normal(n)),
            np.ones(n),
        ],
        1,
    )


def nucleoli(rng: np.random.Generator, look: Morphology, nuclei: np.ndarray) -> np.ndarray:
    """Sample round bright bodies inside the nuclei."""
    k = np.repeat(np.arange(len(nuclei)), 1 + rng.poisson(max(0.0, look.nucleoli - 1), len(nuclei)))
    n = len(k)
    x, y, angle, along, across = nuclei[k, :5].T
    rho, phi = 0.62 * np.sqrt(rng.uniform(size=n)), rng.uniform(0, 2 * np.pi, n)
    u, v = rho * along * np.cos(phi), rho * across * np.sin(phi)
    return np.stack(
        [
            x + u * np.cos(angle) - v * np.sin(angle),
            y + u * np.sin(angle) + v * np.cos(angle),
            look.nucleolus * np.exp(0.22 * rng.standard_normal(n)),
            look.nucleolus_light * np.exp(0.25 * rng.standard_normal(n)),
            np.full(n, 1.5),
        ],
        1,
    )


def granules_and_debris(
    rng: np.random.Generator, look: Morphology, cells: np.ndarray, rounded: np.ndarray, extent: float
) -> list[np.ndarray]:
    """Sample each channel's spots on top: granules, round cells, cells out of focus above the layer, debris."""

    def table(xy: np.ndarray, sigma: np.ndarray, peak: np.ndarray, power: float) -> np.ndarray:
        return np.column_stack([xy, sigma, peak, np.full(len(xy), power)])

    k = _repeat(rng, look.puncta * 6, cells)
    n = len(k)
    granules = table(
        cells[k, :2] + 0.45 * cells[k, 3:5] * rng.standard_normal((n, 2)),
        1.1 * np.exp(0.25 * rng.standard_normal(n)),
        np.exp(0.7 * rng.standard_normal(n)),
        1.0,
    )
    balls = cells[rounded]
    n = len(balls)
    balls = table(
        balls[:, 5:7],
        0.58 * look.nucleus * np.exp(0.25 * rng.standard_normal(n)),
        np.exp(0.5 * rng.standard_normal(n)),
        1.5,
    )
    piled = cells[rng.uniform(size=len(cells)) < look.piling]
    n = len(piled)
    piled = table(
        piled[:, :2] + 6 * rng.standard_normal((n, 2)), 0.35 * piled[:, 4], np.exp(0.4 * rng.standard_normal(n)), 1.0
    )
    n = rng.poisson(4 * (extent / NATIVE) ** 2)
    debris = table(
        rng.uniform(0, extent, (n, 2)), np.exp(rng.normal(0.6, 0.4, n)), np.exp(rng.normal(1.8, 0.6, n)), 1.1
    )
    shown = rng.uniform(size=(6, n)) < 0.5

    # How bright each is in each channel, in units of its cytoplasm.
    peaks = (
        (granules, (0.0, 0.0, 0.9, 0.1, 1.5, 0.35)),
        (balls, (0.5, 3.0, 3.0, 2.6, 3.2, 2.2)),
        (piled, (0.2, 0.9, 0.6, 0.8, 0.6, 0.7)),
    )
    return [
        np.concatenate([*(spots * (1, 1, 1, peak[channel], 1) for spots, peak in peaks), debris[shown[channel]]])
        for channel in range(6)
    ]
