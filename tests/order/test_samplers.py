"""Orders that draw by class: every class as often as every other, and P labels x K samples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rxrx_fast as rx
from rxrx_fast.errors import UsageError
from rxrx_fast.order.epoch import rank_part
from rxrx_fast.order.samplers import BalancedOrder, LabelOrder

classes = st.lists(st.integers(-1, 6), min_size=1, max_size=150).filter(lambda codes: max(codes) >= 0)


@settings(max_examples=100, deadline=None)
@given(classes, st.integers(1, 40), st.booleans(), st.integers(0, 3))
def test_balanced_classes_come_equally_often(codes, batch, drop_last, epoch):
    """Within two samples in every batch, within one over the epoch; samples without a class never."""
    codes = np.array(codes)
    order = BalancedOrder(codes, batch, seed=2, epoch=epoch, drop_last=drop_last)
    number = len(np.unique(codes[codes >= 0]))
    seen = np.concatenate([*(order[k] for k in range(len(order))), np.zeros(0, np.int64)])
    kept = int((codes >= 0).sum())
    assert len(seen) == (kept - kept % batch if drop_last else kept)
    assert (codes[seen] >= 0).all()
    counts = np.array([(codes[seen] == c).sum() for c in np.unique(codes[codes >= 0])])
    assert counts.max() - counts.min() <= 1
    for k in range(len(order)):
        inside = np.array([(codes[order[k]] == c).sum() for c in np.unique(codes[codes >= 0])])
        assert inside.max() - inside.min() <= 2
        assert inside.max() <= -(-len(order[k]) // number) + 1
    with pytest.raises(IndexError):
        order[len(order)]


def test_balanced_draws_within_a_class_are_even():
    """A small class's samples come equally often; a large one's at most once, and others in the next epoch."""
    codes = np.repeat([0, 1], [10, 190])
    orders = [BalancedOrder(codes, 20, seed=5, epoch=e) for e in range(2)]
    seen = [np.concatenate([o[k] for k in range(len(o))]) for o in orders]
    small, large = seen[0][codes[seen[0]] == 0], seen[0][codes[seen[0]] == 1]
    assert np.bincount(small, minlength=10)[:10].tolist() == [10] * 10
    assert len(np.unique(large)) == len(large) == 100
    assert set(large) != set(seen[1][codes[seen[1]] == 1])


@settings(max_examples=100, deadline=None)
@given(classes, st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_labels_times_sites(labels, p, k, epoch):
    """Every batch is P different labels x K samples in a row, all different where the label has K."""
    labels = np.array(labels)
    number = len(np.unique(labels[labels >= 0]))
    if p > number:
        with pytest.raises(UsageError, match=f"needs {p} labels"):
            LabelOrder(labels, p * k, k, seed=3, epoch=epoch)
        return
    order = LabelOrder(labels, p * k, k, seed=3, epoch=epoch)
    assert len(order) >= 1
    for step in range(len(order)):
        batch = order[step].reshape(p, k)
        found = labels[batch]
        assert (found == found[:, :1]).all()
        assert (found >= 0).all()
        assert len(set(found[:, 0])) == p
        for row, label in zip(batch, found[:, 0]):
            assert len(set(row.tolist())) == min(k, int((labels == label).sum()))
    with pytest.raises(IndexError):
        order[len(order)]


def test_labels_take_turns():
    """No label comes a second time before all have come, and over the epoch every sample of an even set comes once."""
    labels = np.repeat(np.arange(12), 8)
    order = LabelOrder(labels, 16, 4, seed=1, epoch=0)
    batches = [order[k] for k in range(len(order))]
    assert len(batches) == 6  # 96 samples
    assert sorted(np.concatenate(batches).tolist()) == list(range(96))
    first_round = np.concatenate(batches[:3])
    assert np.bincount(labels[first_round]).tolist() == [4] * 12


def test_the_draws_are_the_same_for_ever():
    """Numbers written down once, as for the other orders."""
    codes = np.array([0, 1, 1, 2, 1, 1, -1, 2, 1, 1])
    balanced = BalancedOrder(codes, 4, seed=1, epoch=2)
    assert [balanced[k].tolist() for k in range(len(balanced))] == [[9, 0, 3, 5], [0, 7, 2, 0], [7]]
    labels = LabelOrder(codes, 4, 2, seed=1, epoch=2)
    assert [labels[k].tolist() for k in range(len(labels))] == [[5, 1, 3, 7], [3, 7, 9, 2]]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_ranks_share_a_draw(world):
    """Ranks in turn give the global batch, and with P x K each rank has whole labels."""
    labels = np.random.default_rng(0).integers(0, 40, 600)
    order = LabelOrder(labels, 72, 3, seed=0, epoch=1)
    for step in range(len(order)):
        parts = [rank_part(order[step], rank, world) for rank in range(world)]
        np.testing.assert_array_equal(np.concatenate(parts), order[step])
        for part in parts:
            rows = labels[part].reshape(-1, 3)
            assert (rows == rows[:, :1]).all()


def test_stand_ins_are_of_the_class_first():
    """The class's own samples, then all that are drawn; never an unlabelled one."""
    codes = np.array([7, 3, 7, -1, 3, 7])
    first, then = BalancedOrder(codes, 2).pools(2)
    assert first.tolist() == [0, 2, 5]
    assert then.tolist() == [0, 1, 2, 4, 5]


# Through the loader --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["label", "well_type", "cell_type", "experiment", "plate"])
def test_the_loader_balances(dataset, by):
    """balance_by: as many of each class in every batch, within two, and over the epoch, within one."""
    loader = rx.DataLoader(dataset, batch_size=12, balance_by=by, seed=4)
    codes = {"label": dataset.labels, "well_type": dataset.catalog.codes()["well_type"]}.get(by)
    codes = dataset.catalog.group_keys(by)[0] if codes is None else codes
    of_site = dict(zip(dataset.catalog.table.index, codes))
    total = []
    for _, _labels, meta in loader:
        found = [of_site[site] for site in meta["site_index"].tolist()]
        counts = [found.count(c) for c in set(codes)]
        assert max(counts) - min(counts) <= 2
        total += found
    assert len(total) == len(dataset)
    counts = [total.count(c) for c in set(codes)]
    assert max(counts) - min(counts) <= 1


def test_the_loader_makes_labels_times_sites(dataset):
    """sites_per_label: P different labels, K sites of each in a row, in every batch."""
    loader = rx.DataLoader(dataset, batch_size=8, sites_per_label=2, seed=4)
    batches = [labels for _, labels, _ in loader]
    assert len(batches) == len(loader) > 0
    for labels in batches:
        rows = labels.reshape(4, 2)
        assert torch.equal(rows[:, 0], rows[:, 1])
        assert len(set(rows[:, 0].tolist())) == 4


def test_the_loader_gives_whole_groups(dataset):
    """whole_groups: a plate's batches in a row, its code in meta, and 0 left in its last; or a plate a batch."""
    codes, _ = dataset.catalog.group_keys("plate")
    of_site = dict(zip(dataset.catalog.table.index, codes))
    loader = rx.DataLoader(dataset, batch_size=5, group_by="plate", whole_groups=True, shuffle=True)
    plates, inside = [], []
    for _, _, meta in loader:
        (plate,) = set(meta["group"].tolist())
        inside += meta["site_index"].tolist()
        assert {of_site[site] for site in meta["site_index"].tolist()} == {plate}
        if int(meta["group_batches_left"][0]) == 0:
            assert sorted(inside) == sorted(site for site in of_site if of_site[site] == plate)
            plates.append(plate)
            inside = []
    assert sorted(plates) == sorted(set(codes.tolist()))
    entire = rx.DataLoader(dataset, batch_size=12, group_by="plate", whole_groups=True)
    assert [len(labels) for _, labels, _ in entire] == [12] * 4
    two = [rx.DataLoader(dataset, 6, group_by="plate", whole_groups=True, rank=r, world_size=2) for r in (0, 1)]
    for whole, first, second in zip(entire, *two, strict=True):
        assert torch.equal(torch.cat([first[1], second[1]]), whole[1])
        assert set(first[2]["group"].tolist()) == set(second[2]["group"].tolist())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"balance_by": "well"}, "balance_by='well'"),
        ({"sites_per_label": 0}, "sites_per_label=0"),
        ({"batch_size": 6, "sites_per_label": 4}, "not a multiple of sites_per_label=4"),
        ({"batch_size": 4000, "sites_per_label": 4}, "needs 1000 labels"),
        ({"balance_by": "plate", "group_by": "plate"}, "group_by and balance_by"),
        ({"sampler": [1], "sites_per_label": 2}, "sampler and sites_per_label"),
        ({"whole_groups": True}, "needs group_by"),
        ({"whole_groups": True, "group_by": "plate", "drop_last": True}, "drop_last=False"),
    ],
)
def test_plans_that_do_not_fit_are_refused(dataset, arguments, message):
    """One line that names what does not go together."""
    with pytest.raises(rx.UsageError, match=message):
        rx.DataLoader(dataset, **arguments)


def test_unlabelled_data_can_not_be_drawn_by_label(dataset, monkeypatch):
    """Where no site has a label, that is said."""
    monkeypatch.setattr(dataset, "labels", np.full(len(dataset), -1))
    with pytest.raises(rx.UsageError, match="no sample has a label"):
        rx.DataLoader(dataset, balance_by="label")
