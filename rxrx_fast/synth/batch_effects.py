"""Batch effects as large as RxRx1's: what an experiment, a plate and a well's position change in an image.

`MEANS` summarises RxRx1's published per-image statistics, averaged over each of the 204 plates: per cell type and
channel the geometric mean of the plate means in grey levels, their standard deviation between experiments and between
the plates of one experiment (both of the natural logarithm), and the least and greatest plate mean. Within an
experiment the greatest plate mean is 1.14 times the least in the median, at most 1.62 times. The channels go together:
the correlation of the logarithms is about 0.65 between experiments and 0.45 between plates (`SHARED_EXPERIMENT`,
`SHARED_PLATE` are the loadings, the square roots, of the one common factor).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rxrx_fast.synth.randomness import generator

__all__ = ["MEANS", "SiteEffects", "plate_means", "site_effects"]

# geometric mean, sd between experiments (log), sd between plates (log), least, greatest plate mean; channels 1 to 6
MEANS = {
    "HEPG2": (
        (7.1, 0.90, 0.121, 2.2, 40.3),
        (14.7, 0.39, 0.089, 7.4, 27.4),
        (10.6, 0.60, 0.079, 4.8, 37.3),
        (11.1, 0.78, 0.055, 3.3, 46.6),
        (7.1, 0.94, 0.065, 2.2, 45.7),
        (9.3, 0.68, 0.058, 3.5, 32.3),
    ),
    "HUVEC": (
        (4.2, 0.27, 0.116, 2.4, 7.8),
        (15.3, 0.28, 0.100, 5.6, 23.8),
        (7.0, 0.19, 0.107, 4.7, 10.7),
        (8.2, 0.25, 0.044, 3.9, 12.6),
        (2.7, 0.33, 0.086, 1.1, 5.1),
        (6.1, 0.36, 0.070, 3.6, 13.2),
    ),
    "RPE": (
        (2.6, 0.18, 0.128, 1.6, 4.0),
        (12.4, 0.21, 0.105, 7.4, 18.3),
        (12.4, 0.17, 0.101, 8.7, 19.9),
        (7.0, 0.11, 0.049, 5.9, 9.7),
        (4.1, 0.42, 0.068, 1.1, 6.0),
        (8.6, 0.27, 0.058, 5.6, 14.4),
    ),
    "U2OS": (
        (8.2, 0.37, 0.076, 3.7, 11.6),
        (15.7, 0.72, 0.052, 9.4, 57.1),
        (11.9, 0.38, 0.044, 7.6, 22.5),
        (10.5, 0.60, 0.047, 6.0, 30.3),
        (5.1, 0.98, 0.058, 2.8, 29.3),
        (13.9, 0.50, 0.049, 6.2, 26.8),
    ),
}
SHARED_EXPERIMENT = 0.80
SHARED_PLATE = 0.67
# Background level over mean, channels 1 to 6: about the first percentile of a confluent field.
OFFSET_SHARE = (0.17, 0.18, 0.18, 0.16, 0.22, 0.20)
ROWS = "BCDEFGHIJKLMNO"
COLUMNS = range(2, 24)


@dataclass(frozen=True)
class SiteEffects:
    """Everything about a site's images that does not depend on the siRNA. Tuples of six: one value per channel."""

    mean: tuple[float, ...]  # grey levels aimed at, background included
    offset: tuple[float, ...]  # grey levels of background
    blur: tuple[float, ...]  # sigma of the point-spread function, real pixels
    haze: tuple[float, ...]  # share of the light that is out of focus
    illumination: tuple[tuple[float, ...], ...]  # per channel the polynomial of `rxrx_fast.synth.render_kernels.expose`
    shot: float  # noise variance a grey level
    read: float  # noise standard deviation, grey levels
    density: float  # of cells, relative to the cell type's


def plate_means(
    seed: int, experiment: str, plate: int, experiment_effect: float = 1.0, plate_effect: float = 1.0
) -> np.ndarray:
    """Sample the plate's mean grey level in each channel from `MEANS`: (6,) float64.

    An experiment stays within the range of the real plates. Arguments are as for :func:`site_effects`.
    """
    geometric, between, within, least, greatest = np.array(MEANS[experiment.split("-")[0]]).T
    by_experiment = _correlated(generator(seed, "means", experiment), SHARED_EXPERIMENT)
    by_plate = _correlated(generator(seed, "means", experiment, plate), SHARED_PLATE)
    # The experiment's level is clipped, not the plates': two clipped plates would be equal.
    level = np.clip(geometric * np.exp(experiment_effect * between * by_experiment), least, greatest)
    return level * np.exp(plate_effect * within * by_plate)


def site_effects(
    seed: int,
    experiment: str,
    plate: int,
    well: str,
    site: int,
    experiment_effect: float = 1.0,
    plate_effect: float = 1.0,
) -> SiteEffects:
    """Sample one site's batch effects: of its experiment, its plate, its well's position, and chance.

    Parameters
    ----------
    seed : int
    experiment : str, such as ``"HUVEC-03"``.
    plate, site : int
    well : str, a row letter B to O and a two-digit column 02 to 23.
    experiment_effect, plate_effect : float
        Multiply the differences between experiments, and between plates of one experiment. 1 is RxRx1's size.

    Returns
    -------
    SiteEffects
    """
    of_experiment = generator(seed, "effects", experiment)
    of_plate = generator(seed, "effects", experiment, plate)
    of_well = generator(seed, "effects", experiment, plate, well)
    of_site = generator(seed, "effects", experiment, plate, well, site)

    row, column = ROWS.index(well[0]), int(well[1:]) - COLUMNS.start
    y, x = 2 * row / (len(ROWS) - 1) - 1, 2 * column / (len(COLUMNS) - 1) - 1  # the position on the plate in [-1, 1]
    edge = np.exp(-min(row, len(ROWS) - 1 - row, column, len(COLUMNS) - 1 - column) / 1.2)  # 1 in the outermost wells

    e, p = experiment_effect, plate_effect
    mean = plate_means(seed, experiment, plate, e, p)
    # Dispensing order and evaporation: a slope over the plate, partly common to the channels.
    tilt = of_plate.normal(0, p * 0.05, (2, 6)) + of_plate.normal(0, p * 0.05, (2, 1))
    drift = tilt[0] * x + tilt[1] * y - 0.06 * edge
    chance = 0.07 * _correlated(of_well, 0.7) + 0.03 * _correlated(of_site, 0.7)

    # Experiments with bright nuclei are mostly those with more of them: HEPG2-01 is ten times as bright as HEPG2-08 and
    # twice as dense.
    crowd = (mean[0] / MEANS[experiment.split("-")[0]][0][0]) ** 0.3
    density = crowd * np.exp(
        of_experiment.normal(0, e * 0.12)
        + of_plate.normal(0, p * 0.05)
        - 0.14 * edge
        + of_well.normal(0, 0.08)
        + of_site.normal(0, 0.08)
    )
    offset = mean * OFFSET_SHARE * np.exp(of_experiment.normal(0, e * 0.2, 6) + of_plate.normal(0, p * 0.08, 6))
    blur = 0.56 * np.exp(
        of_experiment.normal(0, e * 0.12, 6)
        + of_plate.normal(0, p * 0.06, 6)
        + 0.10 * edge
        + abs(of_well.normal(0, 0.08))
        + of_site.normal(0, 0.03)
    )
    haze = 0.16 * np.exp(
        of_experiment.normal(0, e * 0.2, 6) + of_plate.normal(0, p * 0.08, 6) + of_site.normal(0, 0.08)
    )
    vignette = np.exp(of_experiment.normal(0, e * 0.3)) * 0.06 * np.exp(of_plate.normal(0, p * 0.3, 6))
    slope = of_plate.normal(0, p * 0.035, (2, 6)) + of_well.normal(0, 0.02, (2, 1))
    centre = of_plate.normal(0, p * 0.25, (2, 6))
    # 1 - v ((x - cx)^2 + (y - cy)^2) + slopes, scaled to a mean of about 1: vignetting about a centre that is not the
    # image's.
    illumination = np.stack(
        [
            1 + vignette * 2 / 3,
            2 * vignette * centre[0] + slope[0],
            2 * vignette * centre[1] + slope[1],
            -vignette,
            np.zeros(6),
            -vignette,
        ],
        1,
    )

    # Fuller fields are brighter. The exponent is below 1 because crowded cells are smaller. Only the site's own density
    # moves the mean: the renderer normalises each channel, which removes the siRNA's share.
    level = mean * np.exp(drift + chance) * (density / crowd) ** 0.3
    return SiteEffects(
        mean=_floats(np.maximum(level, offset + 0.4)),
        offset=_floats(offset),
        blur=_floats(blur),
        haze=_floats(np.minimum(haze, 0.5)),
        illumination=tuple(_floats(channel) for channel in illumination),
        shot=float(0.004 * np.exp(of_experiment.normal(0, e * 0.25) + of_plate.normal(0, p * 0.1))),
        read=float(0.05 * np.exp(of_experiment.normal(0, e * 0.25))),
        density=float(np.clip(density, 0.4, 2.2)),
    )


def _correlated(rng: np.random.Generator, loading: float) -> np.ndarray:
    """Sample (6,) normal deviates within 2.5 that share one factor: their correlation is the loading's square."""
    common, own = rng.standard_normal(), rng.standard_normal(6)
    return np.clip(loading * common + np.sqrt(1 - loading**2) * own, -2.5, 2.5)


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
