"""The order of an epoch: a permutation that is computed, cut into batches and shares."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rxrx_fast.errors import UsageError
from rxrx_fast.order.epoch import VERSION, EpochOrder, GivenOrder, Permutation, rank_part, repeated
from rxrx_fast.runtime.counter_rng import fold, mix, uniform


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(-(2**63), 2**63 - 1), st.integers(0, 1000))
def test_permutation_is_one_to_one(n, seed, epoch):
    """Every element once, for any size and key; a part of it is the same as the whole's part."""
    permutation = Permutation(n, seed, epoch)
    whole = permutation(np.arange(n))
    np.testing.assert_array_equal(np.sort(whole), np.arange(n))
    assert permutation(n // 2) == whole[n // 2]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=30), st.integers(0, 99))
def test_many_permutations_at_once_are_those_one_by_one(sizes, seed):
    """Arrays of sizes and of keys give, an element, what the permutation of that size and key gives alone."""
    sizes = np.array(sizes)
    positions = sizes // 2
    together = Permutation(sizes, seed, np.arange(len(sizes)))(positions)
    alone = [int(Permutation(int(n), seed, k)(int(p))) for k, (n, p) in enumerate(zip(sizes, positions))]
    assert together.tolist() == alone


def test_the_order_is_the_same_for_ever():
    """Numbers written down once: a run resumed by another version must go on with the sites that it had not seen.

    If this fails, the arithmetic has changed: give it another VERSION, so that older states are refused.
    """
    assert VERSION == 1
    assert Permutation(1000, 7, 3)(np.arange(12)).tolist() == [
        336, 912, 467, 799, 223, 675, 968, 166, 423, 233, 402, 266
    ]  # fmt: skip
    assert Permutation(125510, 0, 0)(np.arange(6)).tolist() == [46334, 11272, 29491, 12757, 102791, 90606]
    whole = EpochOrder(125510, 256, shuffle=True)
    assert whole[0][:4].tolist() == [99297, 50843, 112899, 60176]
    assert whole[490][-3:].tolist() == [42536, 73135, 2922]
    plain = EpochOrder(20, 4, seed=-3, epoch=11, shuffle=True)
    assert [plain[k].tolist() for k in range(5)] == [
        [17, 1, 18, 14], [7, 2, 0, 13], [5, 9, 16, 8], [4, 11, 12, 6], [15, 19, 3, 10]
    ]  # fmt: skip
    grouped = EpochOrder(32, 4, seed=1, epoch=2, shuffle=True, groups=np.repeat(np.arange(5), [7, 3, 9, 1, 12]))
    assert [grouped[k].tolist() for k in range(10)] == [
        [19], [26, 21, 23, 28], [1, 6, 5], [9, 8, 7], [2, 3, 0, 4], [14, 15, 17, 16], [30, 29, 22, 27],
        [11, 13, 18, 12], [10], [20, 24, 31, 25],
    ]  # fmt: skip


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
    assert u.min() >= 0
    assert u.max() < 1
    np.testing.assert_allclose(np.histogram(u, 10, (0, 1))[0] / len(u), 0.1, atol=0.003)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(u, uniform(8, np.arange(200_000), 3))[0, 1]) < 0.01
    assert uniform(7, 5, 3) == u[5]
    assert fold(1, 2) != fold(2, 1)
    assert fold(-1) != fold(1)
    assert len(np.unique(mix(np.arange(10_000)))) == 10_000
    # Written down once: what is drawn for a site must not change under a run that is resumed.
    assert (int(fold(1, 2, 3)), int(fold(-1))) == (9812528628958509896, 6755974106381971767)
    assert uniform(7, np.arange(3), 2).tolist() == [0.645169001203804, 0.6323897050760322, 0.3114609512472598]


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
        assert 0 <= missing < batch
        assert drop_last or missing == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(1, 20), st.booleans(), st.integers(0, 3))
def test_whole_groups_come_one_after_another(groups, batch, shuffle, epoch):
    """A group is complete before the next begins, its batches count down to 0, and every sample comes once."""
    groups = np.array(groups) * 3
    order = EpochOrder(len(groups), batch, seed=1, epoch=epoch, shuffle=shuffle, groups=groups, whole=True)
    batches = [order[k] for k in range(len(order))]
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(len(groups)))
    left = 0
    for step, found in enumerate(batches):
        told = order.tell(step)
        assert set(groups[found]) == {told["group"]}
        if left == 0:
            left = -(-int((groups == told["group"]).sum()) // batch)
        left -= 1
        assert told["group_batches_left"] == left
    if batch >= len(groups):
        assert len(batches) == len(np.unique(groups))


def test_whole_groups_are_shuffled():
    """With shuffle the groups come in another order each epoch, and the samples within them too."""
    groups = np.repeat(np.arange(12), 5)
    orders = [EpochOrder(60, 5, seed=0, epoch=e, shuffle=True, groups=groups, whole=True) for e in range(2)]
    turns = [[order.tell(k)["group"] for k in range(12)] for order in orders]
    assert turns[0] != turns[1]
    assert sorted(turns[0]) == list(range(12)) != turns[0]
    still = EpochOrder(60, 5, groups=groups, whole=True)
    assert np.concatenate([still[k] for k in range(12)]).tolist() == list(range(60))


def test_shuffled_groups_are_interleaved():
    """Batches of different groups come mixed, not group after group."""
    groups = np.repeat(np.arange(4), 100)
    order = EpochOrder(400, 10, seed=0, epoch=0, shuffle=True, groups=groups)
    sequence = [int(groups[order[k][0]]) for k in range(len(order))]
    assert sequence != sorted(sequence)
    assert sum(a != b for a, b in itertools.pairwise(sequence)) > 15


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(1, 8), st.integers(1, 16))
def test_ranks_share_a_global_batch(n, world, batch):
    """All ranks take as many steps and samples; together they see every sample, and no other."""
    order = EpochOrder(n, batch * world, seed=5, epoch=1, shuffle=True)
    for step in range(len(order)):
        whole = order[step]
        parts = [rank_part(whole, rank, world) for rank in range(world)]
        assert len({len(part) for part in parts}) == 1
        assert len(parts[0]) <= batch
        np.testing.assert_array_equal(np.unique(np.concatenate(parts)), np.unique(whole))
        if len(whole) == batch * world:
            np.testing.assert_array_equal(np.concatenate(parts), whole)


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(1, 8))
def test_padding_is_marked(samples, world):
    """What is marked as repeated is exactly what is there twice: without it, every sample of a batch comes once."""
    batch = np.arange(samples) + 100
    kept = []
    for rank in range(world):
        part, marks = rank_part(batch, rank, world), repeated(samples, rank, world)
        assert len(part) == len(marks)
        kept += part[marks == 0].tolist()
    assert kept == batch.tolist()


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["plain", "grouped"])
def test_any_number_of_ranks_sees_the_same_batches(world, kind):
    """With the same global batch, ranks in turn give every global batch, in the same sequence, and each sample once."""
    groups = np.arange(1000) % 7 if kind == "grouped" else None
    order = EpochOrder(1000, 24, seed=9, epoch=4, shuffle=True, groups=groups)
    seen = []
    for step in range(len(order)):
        parts = [
            rank_part(order[step], rank, world)[repeated(len(order[step]), rank, world) == 0] for rank in range(world)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), order[step])
        seen += np.concatenate(parts).tolist()
    assert sorted(seen) == list(range(1000))


def test_given_order_cuts_a_samplers_numbers():
    """A sampler's numbers in its order, with or without the short last batch."""
    kept = GivenOrder.of_samples(iter([5, 3, 9, 1, 0]), 2, drop_last=False)
    assert [kept[k].tolist() for k in range(len(kept))] == [[5, 3], [9, 1], [0]]
    assert len(GivenOrder.of_samples(iter([5, 3, 9, 1, 0]), 2, drop_last=True)) == 2


def test_stand_ins_come_from_the_same_kind():
    """Pools are the group, or everything, or what the sampler gave: never a sample that was held out."""
    groups = np.array([5, 9, 5, 9, 9])
    assert [p.tolist() for p in EpochOrder(5, 2, groups=groups).pools(3)] == [[1, 3, 4]]
    assert [p.tolist() for p in EpochOrder(4, 2).pools(1)] == [[0, 1, 2, 3]]
    assert [p.tolist() for p in GivenOrder([[4, 2], [7, 2]]).pools(2)] == [[2, 4, 7]]


def test_a_given_order_is_known_by_its_digest():
    """The same batches have the same digest; another order or other cuts do not."""
    digests = [GivenOrder(b).digest() for b in ([[1, 2], [3]], [[1, 2], [3]], [[1], [2, 3]], [[2, 1], [3]])]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
