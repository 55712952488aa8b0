"""The order of an epoch: a permutation that is computed, cut into batches and shares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rxrx_fast.errors import UsageError
from rxrx_fast.keyed import fold, mix, uniform
from rxrx_fast.order import EpochOrder, GivenOrder, Permutation, rank_part


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(-(2**63), 2**63 - 1), st.integers(0, 1000))
def test_permutation_is_one_to_one(n, seed, epoch):
    """Every element once, for any size and key; a part of it is the same as the whole's part."""
    permutation = Permutation(n, seed, epoch)
    whole = permutation(np.arange(n))
    np.testing.assert_array_equal(np.sort(whole), np.arange(n))
    assert permutation(n // 2) == whole[n // 2]


def test_permutation_looks_random():
    """Displacements and neighbours are as those of a random permutation, not of a pattern."""
    n = 20_000
    whole = Permutation(n, 1, 2)(np.arange(n))
    assert abs(np.corrcoef(np.arange(n), whole)[0, 1]) < 0.03
    assert abs(np.corrcoef(whole[:-1], whole[1:])[0, 1]) < 0.03
    other = Permutation(n, 1, 3)(np.arange(n))
    assert (whole == other).mean() < 0.001
    assert abs(np.corrcoef(whole, other)[0, 1]) < 0.03


def test_permutation_of_nothing_is_refused():
    """An empty permutation has one clear line."""
    with pytest.raises(UsageError, match="at least one"):
        Permutation(0, 1)


def test_keyed_numbers_are_uniform_and_keyed():
    """Uniform over [0, 1) in the mean and in each tenth; other keys, other numbers; arrays broadcast."""
    u = uniform(7, np.arange(200_000), 3)
    assert u.min() >= 0 and u.max() < 1
    np.testing.assert_allclose(np.histogram(u, 10, (0, 1))[0] / len(u), 0.1, atol=0.003)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(u, uniform(8, np.arange(200_000), 3))[0, 1]) < 0.01
    assert uniform(7, 5, 3) == u[5]
    assert fold(1, 2) != fold(2, 1) and fold(-1) != fold(1)
    assert len(np.unique(mix(np.arange(10_000)))) == 10_000


sizes = st.integers(1, 400)


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(1, 50), st.booleans(), st.booleans(), st.integers(0, 5))
def test_every_sample_once_an_epoch(n, batch, shuffle, drop_last, epoch):
    """Batches cover 0..n-1 once; with drop_last only a remainder smaller than a batch is missing."""
    order = EpochOrder(n, batch, seed=3, epoch=epoch, shuffle=shuffle, drop_last=drop_last)
    batches = [order[k] for k in range(len(order))]
    seen = np.concatenate([*batches, np.zeros(0, np.int64)])
    assert len(np.unique(seen)) == len(seen)
    assert len(seen) == (n - n % batch if drop_last else n)
    assert all(len(b) == batch for b in batches[: n // batch])
    if not shuffle:
        np.testing.assert_array_equal(seen, np.arange(len(seen)))
    with pytest.raises(IndexError):
        order[len(order)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(1, 20), st.booleans(), st.booleans())
def test_grouped_batches_come_from_one_group(groups, batch, shuffle, drop_last):
    """One group a batch, every sample once, and each group loses less than a batch with drop_last."""
    groups = np.array(groups)
    order = EpochOrder(len(groups), batch, seed=1, epoch=2, shuffle=shuffle, drop_last=drop_last, groups=groups)
    batches = [order[k] for k in range(len(order))]
    assert all(len(np.unique(groups[b])) == 1 for b in batches)
    seen = np.concatenate([*batches, np.zeros(0, np.int64)])
    assert len(np.unique(seen)) == len(seen)
    for group in np.unique(groups):
        missing = (groups == group).sum() - (groups[seen] == group).sum()
        assert 0 <= missing < batch and (drop_last or missing == 0)


def test_shuffled_groups_are_interleaved():
    """Batches of different groups come mixed, not group after group."""
    groups = np.repeat(np.arange(4), 100)
    order = EpochOrder(400, 10, seed=0, epoch=0, shuffle=True, groups=groups)
    sequence = [int(groups[order[k][0]]) for k in range(len(order))]
    assert sequence != sorted(sequence)
    assert sum(a != b for a, b in zip(sequence, sequence[1:])) > 15


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(1, 8), st.integers(1, 16))
def test_ranks_share_a_global_batch(n, world, batch):
    """All ranks take as many steps and samples; together they see every sample, and no other."""
    order = EpochOrder(n, batch * world, seed=5, epoch=1, shuffle=True)
    for step in range(len(order)):
        whole = order[step]
        parts = [rank_part(whole, rank, world) for rank in range(world)]
        assert len({len(part) for part in parts}) == 1 and len(parts[0]) <= batch
        np.testing.assert_array_equal(np.unique(np.concatenate(parts)), np.unique(whole))
        if len(whole) == batch * world:
            np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_given_order_cuts_a_samplers_numbers():
    """A sampler's numbers in its order, with or without the short last batch."""
    kept = GivenOrder.of_samples(iter([5, 3, 9, 1, 0]), 2, drop_last=False)
    assert [kept[k].tolist() for k in range(len(kept))] == [[5, 3], [9, 1], [0]]
    assert len(GivenOrder.of_samples(iter([5, 3, 9, 1, 0]), 2, drop_last=True)) == 2
