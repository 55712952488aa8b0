"""Augmentation draws: keyed, independent, and as likely as they say."""

import numpy as np
import pytest

from rxrx_fast.errors import UsageError
from rxrx_fast.policy import PRESETS, Policy

SITES = np.arange(20_000)


def test_the_empty_policy_changes_nothing():
    """No geometry and factors of exactly one."""
    draws = PRESETS["none"].draw(0, 0, SITES, 0, 6)
    assert (draws.codes == 0).all() and (draws.mean_factor == 1).all() and (draws.std_factor == 1).all()


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
    "policy, expected",
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
        assert factor.min() >= 0.9 and factor.max() < 1.1
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
