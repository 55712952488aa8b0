"""Augmentation draws: keyed, independent, and as likely as they say."""

import dataclasses

import numpy as np
import pytest

from rxrx_fast.augment.policy import PRESETS, Policy
from rxrx_fast.errors import UsageError

SITES = np.arange(20_000)


def test_the_empty_policy_changes_nothing():
    """No geometry and factors of exactly one."""
    draws = PRESETS["none"].draw(0, 0, SITES, 0, 6)
    assert (draws.codes == 0).all()
    assert (draws.mean_factor == 1).all()
    assert (draws.std_factor == 1).all()


def test_draws_depend_on_the_key_alone():
    """A site's row is the same in any company and order; another epoch, view, seed or site gives another."""
    policy = Policy(hflip=0.5, vflip=0.5, transpose=0.5, rot90=0.5, stats_jitter=0.1)
    whole = policy.draw(1, 2, SITES, 0, 6)
    part = policy.draw(1, 2, SITES[[700, 3, 12]], 0, 6)
    for a, b in zip(whole[:3], part[:3]):
        np.testing.assert_array_equal(a[[700, 3, 12]], b)
    for other in (policy.draw(9, 2, SITES, 0, 6), policy.draw(1, 3, SITES, 0, 6), policy.draw(1, 2, SITES, 1, 6)):
        assert 0.8 < (other.codes != whole.codes).mean() < 0.95
        assert (other.mean_factor != whole.mean_factor).mean() > 0.99


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(hflip=0.25), {0: 0.75, 1: 0.25}),
        (Policy(vflip=0.25), {0: 0.75, 2: 0.25}),
        (Policy(transpose=0.25), {0: 0.75, 4: 0.25}),
        (Policy(rot90=1.0), {0: 0.25, 5: 0.25, 3: 0.25, 6: 0.25}),
        (Policy(rot90=0.5), {0: 0.625, 5: 0.125, 3: 0.125, 6: 0.125}),
        (Policy(hflip=0.5, rot90=1.0), {code: 0.125 for code in range(8)}),
    ],
)
def test_probabilities_hold(policy, expected):
    """Each geometry comes as often as its probability says."""
    codes = policy.draw(0, 0, SITES, 0, 6).codes
    share = np.bincount(codes, minlength=8) / len(codes)
    np.testing.assert_allclose(share, [expected.get(code, 0) for code in range(8)], atol=0.015)


def test_statistics_jitter_is_uniform_by_channel():
    """Factors fill 1 +- j evenly, mean and std and channels independently."""
    draws = Policy(stats_jitter=0.1).draw(0, 0, SITES, 0, 6)
    for factor in (draws.mean_factor, draws.std_factor):
        assert factor.shape == (len(SITES), 6)
        assert factor.min() >= 0.9
        assert factor.max() < 1.1
        np.testing.assert_allclose(np.histogram(factor, 4, (0.9, 1.1))[0] / factor.size, 0.25, atol=0.01)
        assert np.abs(np.corrcoef(factor.T) - np.eye(6)).max() < 0.03
    assert abs(np.corrcoef(draws.mean_factor[:, 0], draws.std_factor[:, 0])[0, 1]) < 0.03


@pytest.mark.parametrize("bad", [{"hflip": 1.5}, {"rot90": -0.1}, {"vflip": "often"}, {"stats_jitter": 1.0}])
def test_a_policy_that_cannot_be_is_refused(bad):
    """The message names the field and the value."""
    with pytest.raises(UsageError, match=next(iter(bad))):
        Policy(**bad)


def test_an_unknown_preset_is_refused_with_the_choices():
    """The message lists the presets."""
    with pytest.raises(UsageError, match="'wilds'"):
        Policy.of("strong")


def test_policies_that_only_turn_are_known():
    """The simplest kernel is enough for them; anything that resamples, erases or adds noise needs the other."""
    assert PRESETS["none"].only_turns
    assert PRESETS["wilds"].only_turns
    assert Policy(hflip=0.5, stats_jitter=0.1, gain=0.1, offset=0.2, mixup=1.0).only_turns
    assert not any(PRESETS[name].only_turns for name in ("deepnoise-easy", "deepnoise-hard", "rcic-first-place"))
    for more in ({"shift": 0.1}, {"erase": 0.5}, {"noise": (0, 1)}, {"gamma": 0.1}, {"channel_dropout": 0.1}):
        assert not Policy(**more).only_turns


@pytest.mark.parametrize(
    "bad",
    [
        {"zoom": 1.5},
        {"zoom": (1.2, 0.8)},
        {"crop": (0.0, 1.0)},
        {"interpolation": "cubic"},
        {"border": "black"},
        {"elastic_grid": 3},
        {"center_crop": 0.5},
        {"blur": (0, 99)},
        {"cutmix": -1},
        {"noise": ("a", "b")},
    ],
)
def test_every_field_is_checked(bad):
    """Ranges in order, choices among those there are; the message names the field and shows the value."""
    (name,) = bad
    with pytest.raises(UsageError, match=f"{name}="):
        Policy(**bad)


def test_every_kind_of_draw_is_within_its_range():
    """Zoom, shift, crop, erasing, blur, noise and displacements stay inside, and fill their ranges."""
    policy = Policy(
        rotate=30, zoom=(0.8, 1.2), aspect=(0.5, 2), shift=0.2, crop=(0.5, 0.9), erase=1.0, erase_area=(0.1, 0.3),
        gain=0.1, offset=0.2, gamma=0.5, blur=(1, 3), noise=(2, 4), shot=(0, 1), elastic=7, elastic_grid=5,
    )  # fmt: skip
    draws = policy.draw(0, 0, SITES[:4000], 0, 3)
    angle, zoom_x, zoom_y, *shift = draws.affine.T
    for values, low, high in (
        (np.rad2deg(angle), -30, 30),
        (np.sqrt(zoom_x * zoom_y), 0.8, 1.2),
        (zoom_x / zoom_y, 0.5, 2),
        (np.stack(shift), -0.2, 0.2),
        (draws.crop[:, 0], 0.5, 0.9),
        (draws.crop[:, 1:], 0, 1),
        (draws.erased[:, 0] * draws.erased[:, 1], 0.1, 0.3),
        (np.log(draws.gamma), -np.log(1.5), np.log(1.5)),
        (draws.blur, 1, 3),
        (draws.noise[:, 0], 2, 4),
        (draws.displacement, -7, 7),
    ):
        span = high - low
        assert low - 1e-9 <= values.min() < low + 0.05 * span
        assert high - 0.05 * span < values.max() <= high + 1e-9
    assert (draws.erased[:, :2] < 1).all()
    assert abs(draws.gain.mean() - 1) < 0.01
    assert abs(draws.gain.std() - 0.1) < 0.01
    assert abs(draws.offset.mean()) < 0.02
    assert abs(draws.offset.std() - 0.2) < 0.02
    assert draws.displacement.shape == (4000, 2, 5, 5)
    assert len(np.unique(draws.key if draws.key is not None else [])) == 4000


def test_no_two_kinds_share_their_numbers():
    """Draws of different kinds are unrelated: no pair of columns is correlated."""
    policy = Policy(rotate=30, zoom=(0.8, 1.2), shift=0.2, crop=(0.5, 0.9), gamma=0.5, blur=(1, 3), noise=(2, 4))
    draws = policy.draw(0, 0, SITES, 0, 2)
    columns = np.column_stack([draws.affine, draws.crop, draws.gamma, draws.blur, draws.noise[:, :1]])
    columns = np.delete(columns, 2, axis=1)  # zoom in y is zoom in x here
    assert np.abs(np.corrcoef(columns.T) - np.eye(columns.shape[1])).max() < 0.03


def test_the_draws_are_the_same_for_ever():
    """Numbers written down: a run that is resumed with a later version sees the same augmentation."""
    policy = dataclasses.replace(
        PRESETS["deepnoise-hard"], gain=0.1, offset=0.1, gamma=0.2, noise=(1, 3), blur=(0, 2), elastic=3, rotate=15
    )
    draws = policy.draw(7, 3, np.array([11, 12]), 1, 2)
    found = [round(float(v), 9) for part in draws[1:-2] if part is not None for v in np.ravel(part)[:2]]
    assert draws.codes.tolist() == [3, 2]
    assert found == [
        0.921294496,
        1.019584873,
        0.994735969,
        1.09556923,
        0.0,
        1.0,
        0.821044081,
        0.43305417,
        0.0,
        0.0,
        1.07828694,
        1.164936142,
        -0.028224684,
        -0.080261765,
        0.89061912,
        0.920061275,
        0.69866437,
        1.663211737,
        1.571810955,
        0.0,
    ]
    assert draws.key.tolist() == [2731036484650533695, 11222474764953924130]
