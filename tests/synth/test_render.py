"""Synthetic rendering: deterministic, labels in textures and not in means, real batch effects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rxrx_fast.synth.batch_effects import MEANS, plate_means, site_effects
from rxrx_fast.synth.phenotypes import (
    CELL_TYPES,
    FACTORS,
    NEGATIVE_CONTROL,
    POSITIVE_CONTROLS,
    TREATMENTS,
    morphology,
    phenotype,
)
from rxrx_fast.synth.render import SiteSpec, render_site


def draw(
    sirna: int = NEGATIVE_CONTROL, cell_type: str = "HUVEC", size: int = 64, draw_number: int = 0, **effects
) -> np.ndarray:
    experiment = f"{cell_type}-01"
    conditions = replace(site_effects(0, experiment, 1, "H12", 1), **effects)
    return render_site(SiteSpec(cell_type, sirna, conditions, ("test", draw_number), size))


@pytest.mark.parametrize("cell_type", CELL_TYPES)
@pytest.mark.parametrize("size", [16, 33, 64, 100])
def test_a_picture_has_six_channels_of_bytes_at_any_size(cell_type, size):
    """Every cell type renders at every size, and no channel is blank."""
    image = draw(cell_type=cell_type, size=size)
    assert image.shape == (6, size, size)
    assert image.dtype == np.uint8
    assert all(channel.std() > 0.3 for channel in image)


def test_equal_descriptions_give_equal_bytes():
    """The image is a pure function of the description, and each part of the description matters."""
    first = draw()
    assert np.array_equal(first, draw())
    assert not np.array_equal(first, draw(draw_number=1))
    assert not np.array_equal(first, draw(sirna=1108))
    assert not np.array_equal(first, draw(blur=(2.0,) * 6))


def test_the_mean_aimed_at_is_met():
    """Each channel's mean is that of the batch effects, whatever the siRNA."""
    wanted = (20.0, 30.0, 25.0, 22.0, 18.0, 28.0)
    for sirna in (NEGATIVE_CONTROL, 1110, 5):
        image = draw(sirna, size=128, mean=wanted, offset=(3.0,) * 6)
        assert image.mean((1, 2)) == pytest.approx(wanted, rel=0.06)


def test_the_background_is_dim_but_not_black():
    """The darkest hundredth of a bright field is at the offset of the camera, above zero."""
    image = draw(size=128, mean=(20.0,) * 6, offset=(4.0,) * 6)
    assert (np.percentile(image, 1, axis=(1, 2)) >= 3).all()


def test_cell_types_differ():
    """The four types differ in how many cells there are and how large they are, as the real ones do."""
    assert CELL_TYPES["HEPG2"].count > 2 * CELL_TYPES["HUVEC"].count
    assert CELL_TYPES["HEPG2"].nucleus < CELL_TYPES["HUVEC"].nucleus < CELL_TYPES["U2OS"].nucleus
    covered = {}
    for cell_type in CELL_TYPES:
        nuclei = draw(cell_type=cell_type, size=256, mean=(30.0,) * 6, offset=(3.0,) * 6)[0]
        covered[cell_type] = float((nuclei > 2 * np.median(nuclei)).mean())
    assert len({round(share, 3) for share in covered.values()}) == 4
    assert all(0.03 < share < 0.6 for share in covered.values())


def test_phenotypes_depend_on_the_sirna_alone():
    """Untreated cells are the reference; controls are stronger than treatments; every siRNA has its own vector."""
    assert phenotype(NEGATIVE_CONTROL) == (0.0,) * len(FACTORS)
    size = [float(np.std(phenotype(sirna))) for sirna in range(TREATMENTS)]
    controls = [float(np.std(phenotype(sirna))) for sirna in POSITIVE_CONTROLS]
    assert np.median(controls) > 1.5 * np.median(size) > 0.4
    assert len({phenotype(sirna) for sirna in range(NEGATIVE_CONTROL + 1)}) == NEGATIVE_CONTROL + 1
    for cell_type, base in CELL_TYPES.items():
        assert morphology(cell_type, NEGATIVE_CONTROL) == base
        densities = [morphology(cell_type, sirna).density for sirna in range(200)]
        assert 0.85 < min(densities) < max(densities) < 1.18


def textures(image: np.ndarray) -> np.ndarray:
    """Compute each channel's texture features, which do not change with the mean."""
    x = image.astype(float)
    mean = x.mean((1, 2))
    rows = [np.log((np.abs(x[:, :, lag:] - x[:, :, :-lag]).mean((1, 2)) + 0.05) / mean) for lag in (1, 2, 4, 8)]
    centred = x - mean[:, None, None]
    rows.append((centred**3).mean((1, 2)) / (x.std((1, 2)) ** 3 + 1e-6))
    rows.append(np.log(np.percentile(x, 90, axis=(1, 2)) / mean))
    return np.concatenate(rows)


def accuracy(features: np.ndarray, labels: np.ndarray, train: np.ndarray) -> float:
    """Classify by linear discriminant analysis."""
    classes = np.unique(labels)
    centres = np.stack([features[train & (labels == c)].mean(0) for c in classes])
    residual = features[train] - centres[np.searchsorted(classes, labels[train])]
    scatter = residual.T @ residual / len(residual)
    scatter += 0.05 * np.diag(np.diag(scatter))
    difference = features[~train][:, None] - centres[None]
    distance = np.einsum("ncf,fg,ncg->nc", difference, np.linalg.inv(scatter), difference)
    return float((classes[distance.argmin(1)] == labels[~train]).mean())


def test_labels_show_in_textures_and_not_in_means():
    """On one plate, textures classify far above chance, and channel means at chance."""
    sirnas, wells = [3, 41, 99, 250, 1111, 1120], 36
    labels = np.repeat(sirnas, wells)
    positions = [f"{row}{column:02d}" for row in "DEFGHIJKLM" for column in range(4, 20)]
    order = np.random.default_rng(0).permutation(len(labels))
    means, details = [], []
    for i, sirna in enumerate(labels):
        effects = site_effects(1, "RPE-03", 2, positions[order[i] % len(positions)], 1 + order[i] // len(positions))
        image = render_site(SiteSpec("RPE", int(sirna), effects, ("phenotypes", i), 64))
        means.append(image.mean((1, 2)))
        details.append(textures(image))
    train = np.arange(len(labels)) % wells < 2 * wells // 3
    by_mean = accuracy(np.array(means), labels, train)
    by_texture = accuracy(np.array(details), labels, train)
    chance = 1 / len(sirnas)
    assert by_mean < chance + 0.12, by_mean
    assert by_texture > 3 * chance, by_texture


def test_batch_effects_have_the_real_size():
    """Plate means spread between and within experiments as RxRx1's do, and stay within their range."""
    for cell_type, figures in MEANS.items():
        means = np.array(
            [
                [plate_means(seed, f"{cell_type}-{e:02d}", p) for p in range(1, 5)]
                for seed in range(8)
                for e in range(1, 12)
            ]
        )
        logs = np.log(means)
        for channel, (geometric, between, within, least, greatest) in enumerate(figures):
            assert logs[:, :, channel].std(1, ddof=1).mean() == pytest.approx(0.92 * within, rel=0.2)
            assert 0.45 * between < logs[:, :, channel].mean(1).std() < 1.2 * between
            assert np.exp(logs[:, :, channel].mean()) == pytest.approx(geometric, rel=0.35)
            assert least * 0.65 < means[:, :, channel].min()
            assert means[:, :, channel].max() < greatest * 1.55
    ratios = means.max(1) / means.min(1)
    assert 1.05 < np.median(ratios) < 1.35


def test_batch_effects_scale():
    """A factor multiplies the deviations of the logarithm; at 0 they vanish."""
    plates = {f: np.log([plate_means(0, "RPE-03", p, 1.0, f) for p in range(1, 5)]) for f in (0.0, 1.0, 3.0)}
    np.testing.assert_allclose(plates[3.0] - plates[0.0], 3 * (plates[1.0] - plates[0.0]))
    assert np.ptp(plates[0.0], 0).max() == 0
    assert np.ptp(plates[1.0], 0).min() > 0
    same = [site_effects(0, name, 2, "H12", 1, 0.0, 0.0) for name in ("RPE-03", "RPE-04")]
    other = [site_effects(0, name, 2, "H12", 1) for name in ("RPE-03", "RPE-04")]
    assert same[0].shot == same[1].shot
    assert same[0].read == same[1].read
    assert other[0].read != other[1].read
    assert np.array(phenotype(5, 0.5)) == pytest.approx(0.5 * np.array(phenotype(5)))


def test_batch_effects_are_nested():
    """Plates of an experiment are alike, wells of a plate more so, and outer wells thinner and blurrier."""
    density = {edge: [] for edge in (True, False)}
    blur = {edge: [] for edge in (True, False)}
    for plate in range(1, 5):
        for row in "BHO":
            for column in (2, 12, 23):
                effects = site_effects(3, "U2OS-02", plate, f"{row}{column:02d}", 1)
                edge = row in "BO" or column in (2, 23)
                density[edge].append(effects.density)
                blur[edge].append(np.mean(effects.blur))
    assert np.mean(density[True]) < np.mean(density[False])
    assert np.mean(blur[True]) > np.mean(blur[False])
    assert site_effects(3, "U2OS-02", 1, "C05", 1) == site_effects(3, "U2OS-02", 1, "C05", 1)
    assert site_effects(3, "U2OS-02", 1, "C05", 1) != site_effects(3, "U2OS-02", 1, "C05", 2)
    assert site_effects(3, "U2OS-02", 1, "C05", 1) != site_effects(4, "U2OS-02", 1, "C05", 1)


def test_the_illumination_is_uneven_but_mild():
    """The field's brightness varies by some per cent from centre to corner, with its mean kept."""
    y, x = np.mgrid[-1:1:33j, -1:1:33j]
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    for plate in range(1, 5):
        for polynomial in site_effects(5, "HEPG2-04", plate, "G07", 2).illumination:
            field = np.tensordot(polynomial, basis, 1)
            assert 0.02 < np.ptp(field) < 0.9
            assert field.min() > 0.4
            assert field.mean() == pytest.approx(1, abs=0.03)
