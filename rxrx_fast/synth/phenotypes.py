"""What synthetic cells look like: four cell types, and what each siRNA changes about them.

A phenotype is a vector of independent morphological factors (`FACTORS`). Each is a standard-normal-like number that
scales one property of the cells. A phenotype depends on the siRNA alone and never on a seed, so siRNA 17 looks alike in
every synthetic data set, experiment and cell type.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from rxrx_fast.synth.randomness import generator

__all__ = [
    "CELL_TYPES",
    "FACTORS",
    "NEGATIVE_CONTROL",
    "POSITIVE_CONTROLS",
    "TREATMENTS",
    "Morphology",
    "morphology",
    "phenotype",
]

TREATMENTS = 1108  # siRNA 0 to 1107
POSITIVE_CONTROLS = range(1108, 1138)
NEGATIVE_CONTROL = 1138  # untreated

FACTORS = (
    "nucleus_size",
    "nucleus_length",
    "nucleus_lobes",
    "chromatin",
    "nucleoli_count",
    "nucleoli_size",
    "er_texture",
    "er_reach",
    "actin_fibres",
    "actin_order",
    "actin_ridge",
    "mito_length",
    "mito_reach",
    "golgi_spread",
    "cell_length",
    "multinucleated",
    "density",
)

TREATMENT_STRENGTH = 0.65  # median over treatments of the factors' standard deviation: subtle to moderate
CONTROL_STRENGTH = 1.5  # the effect of a positive control is visible


@dataclass(frozen=True)
class Morphology:
    """The average cell.

    Lengths in real pixels (one pixel of a 512 x 512 image), light in units of the channel's typical cytoplasm.
    """

    count: float  # cells in 512 x 512 pixels
    spacing: float  # the least distance between two centres in a dense place
    holes: float  # how patchy the monolayer is: 0 even, 1 islands
    radius: float  # of the cell
    elongation: float  # long over short semi-axis of the cell
    alignment: float  # 0: cells point anywhere, 1: neighbours are parallel
    nucleus: float  # geometric mean of the semi-axes
    nucleus_elongation: float
    lobes: float  # amplitude of the outline's harmonics
    chromatin: float  # contrast of the texture inside the nucleus
    nucleoli: float  # mean number
    nucleolus: float  # sigma of the spot
    nucleolus_light: float
    er_reach: float  # how far from the nucleus the ER fades by e
    er_floor: float  # ER at the periphery relative to the perinuclear one
    er_contrast: float
    er_hollow: float  # how much darker the nucleus is
    fibres: float  # stress fibres a cell
    fibre_length: float
    fibre_disorder: float  # radian
    fibre_light: float
    actin_floor: float
    ridge: float  # light of the cell border in actin
    mitochondria: float  # strokes a cell
    mito_length: float
    mito_reach: float
    mito_light: float
    mito_haze: float  # mitochondria too fine to be told apart
    mito_roughness: float  # radian a real pixel
    golgi_spots: float
    golgi_spread: float  # radian of arc around the nucleus
    golgi_light: float
    membrane_nucleus: float  # nuclei in the WGA channel
    rna_nucleus: float  # nucleoplasm in the Syto14 channel
    dna_haze: float  # cytoplasm in the Hoechst channel
    actin_leak: float  # actin fibres in the WGA channel
    crack: float  # how dark the seam between two cells is
    puncta: float  # bright granules a cell, in actin, mitochondria and Golgi
    unevenness: float  # spread of the stain over the field (log)
    piling: float  # cells that sit on top of the layer, out of focus, a cell
    rounded: float  # share of cells in division or death: round, condensed, bright
    multinucleated: float  # share of cells with two nuclei
    density: float = 1.0  # relative to the well's own density


# Sizes measured by eye and ruler on untreated wells of RxRx1 (well B02), one experiment a type.
CELL_TYPES = {
    "HEPG2": Morphology(
        count=340,
        spacing=15,
        holes=0.50,
        radius=17.5,
        elongation=1.30,
        alignment=0.2,
        nucleus=9.4,
        nucleus_elongation=1.28,
        lobes=0.06,
        chromatin=0.16,
        nucleoli=2.2,
        nucleolus=1.5,
        nucleolus_light=0.55,
        er_reach=11,
        er_floor=0.55,
        er_contrast=0.12,
        er_hollow=0.52,
        fibres=4,
        fibre_length=20,
        fibre_disorder=1.0,
        fibre_light=0.35,
        actin_floor=1.0,
        ridge=0.30,
        actin_leak=0.2,
        mitochondria=16,
        mito_length=6,
        mito_reach=11,
        mito_light=0.30,
        mito_haze=1.6,
        mito_roughness=0.2,
        golgi_spots=8,
        golgi_spread=0.8,
        golgi_light=0.16,
        membrane_nucleus=0.05,
        rna_nucleus=0.62,
        dna_haze=0.06,
        crack=0.38,
        puncta=0.10,
        unevenness=0.17,
        piling=0.06,
        rounded=0.007,
        multinucleated=0.02,
    ),
    "HUVEC": Morphology(
        count=122,
        spacing=22,
        holes=0.20,
        radius=34,
        elongation=1.6,
        alignment=0.6,
        nucleus=10.9,
        nucleus_elongation=1.5,
        lobes=0.035,
        chromatin=0.15,
        nucleoli=2.6,
        nucleolus=1.4,
        nucleolus_light=0.45,
        er_reach=13,
        er_floor=0.10,
        er_contrast=0.25,
        er_hollow=0.62,
        fibres=38,
        fibre_length=52,
        fibre_disorder=0.30,
        fibre_light=0.52,
        actin_floor=1.0,
        ridge=0.50,
        actin_leak=0.42,
        mitochondria=48,
        mito_length=5,
        mito_reach=10,
        mito_light=1.1,
        mito_haze=0.9,
        mito_roughness=0.3,
        golgi_spots=12,
        golgi_spread=0.6,
        golgi_light=0.4,
        membrane_nucleus=1.0,
        rna_nucleus=0.32,
        dna_haze=0.08,
        crack=0.12,
        puncta=0.16,
        unevenness=0.10,
        piling=0.02,
        rounded=0.018,
        multinucleated=0.02,
    ),
    "RPE": Morphology(
        count=95,
        spacing=25,
        holes=0.30,
        radius=39,
        elongation=2.1,
        alignment=0.8,
        nucleus=11.4,
        nucleus_elongation=1.55,
        lobes=0.035,
        chromatin=0.15,
        nucleoli=1.8,
        nucleolus=1.9,
        nucleolus_light=0.95,
        er_reach=20,
        er_floor=0.30,
        er_contrast=0.20,
        er_hollow=0.45,
        fibres=64,
        fibre_length=62,
        fibre_disorder=0.18,
        fibre_light=0.44,
        actin_floor=1.0,
        ridge=0.45,
        actin_leak=0.26,
        mitochondria=95,
        mito_length=13,
        mito_reach=6,
        mito_light=0.62,
        mito_haze=1.0,
        mito_roughness=0.09,
        golgi_spots=14,
        golgi_spread=0.7,
        golgi_light=0.25,
        membrane_nucleus=0.55,
        rna_nucleus=0.62,
        dna_haze=0.20,
        crack=0.26,
        puncta=0.08,
        unevenness=0.14,
        piling=0.03,
        rounded=0.018,
        multinucleated=0.02,
    ),
    "U2OS": Morphology(
        count=118,
        spacing=25,
        holes=0.28,
        radius=35,
        elongation=1.25,
        alignment=0.35,
        nucleus=12.0,
        nucleus_elongation=1.28,
        lobes=0.06,
        chromatin=0.105,
        nucleoli=4.5,
        nucleolus=1.3,
        nucleolus_light=0.5,
        er_reach=15,
        er_floor=0.40,
        er_contrast=0.23,
        er_hollow=0.38,
        fibres=24,
        fibre_length=50,
        fibre_disorder=0.5,
        fibre_light=0.38,
        actin_floor=0.95,
        ridge=0.65,
        actin_leak=0.25,
        mitochondria=60,
        mito_length=8,
        mito_reach=5,
        mito_light=0.9,
        mito_haze=0.7,
        mito_roughness=0.2,
        golgi_spots=30,
        golgi_spread=0.7,
        golgi_light=0.5,
        membrane_nucleus=0.55,
        rna_nucleus=0.72,
        dna_haze=0.05,
        crack=0.22,
        puncta=0.10,
        unevenness=0.10,
        piling=0.02,
        rounded=0.025,
        multinucleated=0.03,
    ),
}


@lru_cache(maxsize=2048)
def phenotype(sirna: int, strength: float = 1.0) -> tuple[float, ...]:
    """Return the morphological factors of a siRNA: one number per name in `FACTORS`, in [-3, 3].

    They are 0 for untreated cells. ``strength`` multiplies them before the limits.
    """
    if sirna == NEGATIVE_CONTROL:
        return (0.0,) * len(FACTORS)
    rng = generator("phenotype", sirna)
    control = sirna in POSITIVE_CONTROLS
    own = CONTROL_STRENGTH if control else TREATMENT_STRENGTH * np.exp(0.35 * rng.standard_normal())
    return tuple(float(z) for z in np.clip(strength * own * rng.standard_normal(len(FACTORS)), -3.0, 3.0))


def morphology(cell_type: str, sirna: int, strength: float = 1.0) -> Morphology:
    """Describe the average cell of a type after a siRNA, ``strength`` times as different as by default.

    The density changes by a few per cent only: counting cells must not reveal the label.
    """
    base = CELL_TYPES[cell_type]
    z = dict(zip(FACTORS, phenotype(sirna, strength), strict=True))

    def times(value: float, factor: str, size: float) -> float:
        return value * float(np.exp(size * z[factor]))

    return replace(
        base,
        nucleus=times(base.nucleus, "nucleus_size", 0.09),
        nucleus_elongation=1 + times(base.nucleus_elongation - 1, "nucleus_length", 0.32),
        lobes=times(base.lobes, "nucleus_lobes", 0.45),
        chromatin=times(base.chromatin, "chromatin", 0.4),
        nucleoli=times(base.nucleoli, "nucleoli_count", 0.4),
        nucleolus=times(base.nucleolus, "nucleoli_size", 0.16),
        er_contrast=times(base.er_contrast, "er_texture", 0.4),
        er_reach=times(base.er_reach, "er_reach", 0.3),
        fibres=times(base.fibres, "actin_fibres", 0.45),
        fibre_disorder=times(base.fibre_disorder, "actin_order", 0.4),
        ridge=times(base.ridge, "actin_ridge", 0.5),
        mitochondria=times(base.mitochondria, "mito_length", -0.3),  # the same mass in fewer, longer pieces
        mito_length=times(base.mito_length, "mito_length", 0.5),
        mito_reach=times(base.mito_reach, "mito_reach", 0.35),
        golgi_spread=times(base.golgi_spread, "golgi_spread", 0.5),
        elongation=1 + times(base.elongation - 1, "cell_length", 0.6),
        multinucleated=min(0.4, times(base.multinucleated, "multinucleated", 0.8)),
        density=times(1.0, "density", 0.04),
    )
