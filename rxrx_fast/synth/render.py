"""Synthetic rendering: from a small description of a site to uint8 images of cells under six dyes.

A site is drawn in this order:

1. a patchy layer of cells, and their nuclei;
2. strokes for actin fibres, mitochondria and Golgi, spots for nucleoli, granules and debris;
3. the light of each dye at every pixel;
4. the microscope: a point-spread function with a wide skirt of out-of-focus light;
5. the camera: illumination, background, photon and read noise, eight bits.

Two rules make the images useful for testing learning. *The mean does not depend on the siRNA*: before the batch effects
each channel is divided by its own mean, so only shapes and textures show the label. *The batch effects do not depend on
the siRNA*: they are a function of the position on the plate and of chance (`rxrx_fast.synth.batch_effects`).

A smaller image loses field and resolution alike: an image of 512 / k pixels a side shows a field smaller by the square
root of k, at a resolution lower by the square root of k. So 64 pixels (k = 8) still show a dozen cells whose nuclei
span 8 pixels. Above 512 the field grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

from rxrx_fast.synth import cells as tables
from rxrx_fast.synth import render_kernels as kernels
from rxrx_fast.synth.batch_effects import SiteEffects
from rxrx_fast.synth.cells import NATIVE
from rxrx_fast.synth.phenotypes import Morphology, morphology
from rxrx_fast.synth.randomness import generator

__all__ = ["SiteSpec", "render_site"]

MARGIN = 14.0  # real pixels drawn beyond every side and cut off, so that cells and blur enter from outside
HAZE_SIGMA = 9.0  # real pixels, the skirt of the point-spread function
# Texture bands: period of the peak in real pixels (at least 2.5 grid pixels are drawn) and width in octaves.
BANDS = {"reticulum": (5.2, 1.0), "cloud": (34.0, 0.6), "grain": (3.2, 0.7), "chromatin": (5.0, 0.8)}
WARP = (44.0, 0.6, 3.2)  # displacement of cell borders: period, width in octaves, amplitude in real pixels


@dataclass(frozen=True)
class SiteSpec:
    """Everything that a site's images depend on.

    Parameters
    ----------
    cell_type : one of "HEPG2", "HUVEC", "RPE", "U2OS".
    sirna : int, 0 to 1107 treatments, 1108 to 1137 positive controls, 1138 untreated.
    effects : the batch effects of the site.
    key : what the random numbers are keyed by, such as (seed, experiment, plate, well, site).
    size : pixels a side.
    strength : how much of its effect the siRNA has.
    """

    cell_type: str
    sirna: int
    effects: SiteEffects
    key: tuple[object, ...]
    size: int = NATIVE
    strength: float = 1.0


def render_site(spec: SiteSpec) -> np.ndarray:
    """Render a site.

    Equal descriptions give equal bytes, with any NumPy that keeps its random streams.

    Parameters
    ----------
    spec : SiteSpec

    Returns
    -------
    (6, size, size) uint8
        Channels in the order of RxRx1: nuclei, ER, actin, nucleoli and RNA, mitochondria, Golgi.
    """
    size, effects = spec.size, spec.effects
    pitch = math.sqrt(NATIVE / size) if size < NATIVE else 1.0
    margin = max(2, math.ceil(MARGIN / pitch))
    grid = scipy.fft.next_fast_len(size + 2 * margin, real=True)
    look = morphology(spec.cell_type, spec.sirna, spec.strength)
    rng = generator("site", *spec.key)

    fields = _Fields(rng, grid, pitch)
    cells, stain, nuclei, rounded = tables.grow(rng, look, effects.density * look.density, grid * pitch)
    owner, runner = np.empty((2, grid, grid), np.int32)
    first, second = np.empty((2, grid, grid), np.float32)
    kernels.nearest_cells(cells, pitch, fields.warp[0], fields.warp[1], owner, runner, first, second)
    light, cover, actin, mitochondria, golgi, nucleoli = np.zeros((6, grid, grid), np.float32)
    kernels.paint_nuclei(nuclei, pitch, fields.chromatin, light, cover)
    wiggle = rng.standard_normal(4096)
    kernels.paint_strokes(tables.fibres(rng, look, cells), cells, owner, pitch, wiggle, actin)
    kernels.paint_strokes(tables.mitochondria(rng, look, cells), cells, owner, pitch, wiggle, mitochondria)
    kernels.paint_spots(tables.golgi(rng, look, cells), pitch, golgi)
    kernels.paint_spots(tables.nucleoli(rng, look, nuclei), pitch, nucleoli)
    signal = np.empty((6, grid, grid), np.float32)
    kernels.shade(
        cells,
        stain,
        pitch,
        owner,
        runner,
        first,
        second,
        light,
        cover,
        fields.textures,
        actin,
        mitochondria,
        golgi,
        nucleoli,
        _style(look),
        signal,
    )
    signal *= fields.unevenness(look.unevenness)
    for channel, spots in enumerate(tables.granules_and_debris(rng, look, cells, rounded, grid * pitch)):
        kernels.paint_spots(spots, pitch, signal[channel])

    spectrum = scipy.fft.rfft2(signal)
    for channel in range(6):
        spectrum[channel] *= _optics(grid, pitch, round(effects.blur[channel], 3), round(effects.haze[channel], 3))
    signal = scipy.fft.irfft2(spectrum, s=(grid, grid))

    noise = rng.standard_normal((6, size, size), dtype=np.float32)
    image = np.empty((6, size, size), np.uint8)
    inner = slice(margin, margin + size)
    for channel in range(6):
        mean = float(signal[channel, inner, inner].mean(dtype=np.float64))
        level = (effects.mean[channel] - effects.offset[channel]) / max(mean, 1e-6)
        kernels.expose(
            signal[channel],
            margin,
            level,
            effects.offset[channel],
            np.array(effects.illumination[channel]),
            effects.shot,
            effects.read,
            noise[channel],
            image[channel],
        )
    return image


class _Fields:
    """Smooth random fields, all from one spectrum of white noise: disjoint bands are independent."""

    def __init__(self, rng: np.random.Generator, grid: int, pitch: float) -> None:
        self._pitch, self._grid = pitch, grid
        spectrum = scipy.fft.rfft2(rng.standard_normal((2, grid, grid), dtype=np.float32))
        bands = [spectrum[0] * _band(grid, pitch, *BANDS[name]) for name in ("reticulum", "cloud")]
        bands += [spectrum[1] * _band(grid, pitch, *BANDS[name]) for name in ("grain", "chromatin")]
        bands += [white * _band(grid, pitch, *WARP[:2]) for white in spectrum]
        fields = scipy.fft.irfft2(np.stack(bands), s=(grid, grid))
        self.textures, self.chromatin, self.warp = fields[:3], fields[3], fields[4:] * np.float32(WARP[2])
        self._waves = tables.waves(rng, 5, 150.0, 600.0)

    def unevenness(self, spread: float) -> np.ndarray:
        """Compute the stain's slow drift over the field, (H, W) float32.

        It is lognormal; ``spread`` is the standard deviation of its natural logarithm.
        """
        position = np.arange(self._grid) * self._pitch
        field = tables.sum_of_waves(self._waves, position[None, :], position[:, None])
        return np.exp(spread * field).astype(np.float32)


@lru_cache(maxsize=16)
def _band(grid: int, pitch: float, period: float, octaves: float) -> np.ndarray:
    """Compute the spectral weight of a band-limited texture of unit variance, log-normal about 1 / period.

    Returns (grid, grid // 2 + 1) float32.
    """
    frequency = _frequency(grid)
    peak = pitch / max(period, 2.5 * pitch)
    weight = np.exp(-0.5 * (np.log2(np.maximum(frequency, 1e-9) / peak) / octaves) ** 2)
    weight[0, 0] = 0.0
    # Parseval, for the half spectrum of a real field of unit white noise.
    twice = np.full(weight.shape[1], 2.0)
    twice[0] = 1.0
    if grid % 2 == 0:
        twice[-1] = 1.0
    return (weight / math.sqrt((weight**2 * twice).sum() / grid**2)).astype(np.float32)


@lru_cache(maxsize=96)
def _optics(grid: int, pitch: float, sigma: float, haze: float) -> np.ndarray:
    """Compute the optical transfer function: a Gaussian core and a wide skirt of out-of-focus light.

    Returns (grid, grid // 2 + 1) float32.
    """
    square = _frequency(grid) ** 2 / pitch**2
    core = np.exp(-2 * math.pi**2 * sigma**2 * square)
    skirt = np.exp(-2 * math.pi**2 * HAZE_SIGMA**2 * square)
    return ((1 - haze) * core + haze * skirt).astype(np.float32)


def _frequency(grid: int) -> np.ndarray:
    return np.hypot(scipy.fft.fftfreq(grid)[:, None], scipy.fft.rfftfreq(grid)[None, :])


def _style(look: Morphology) -> np.ndarray:
    """Collect the row ``style`` of `rxrx_fast.synth.render_kernels.shade`."""
    return np.array(
        [
            look.er_reach,
            look.er_floor,
            look.er_contrast,
            look.actin_floor,
            look.ridge,
            1.0,
            look.mito_haze,
            look.mito_light,
            look.golgi_light,
            look.membrane_nucleus,
            look.rna_nucleus,
            look.crack,
            look.mito_reach,
            0.55,
            look.er_hollow,
            look.dna_haze,
            look.actin_leak,
        ]
    )
