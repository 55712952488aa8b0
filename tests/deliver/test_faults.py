"""Damaged files: each has a name, a reason and a place in the report, and costs one line and not the run."""

import os
import re
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import assert_no_threads
from PIL import Image
from rxrx_kernels.png import files as png

import rxrx_fast as rx
from rxrx_fast.deliver.faults import stand_in


def well_formed_but_wrong(path):
    """A PNG whose chunks and CRCs are right and whose compressed data is not: only decoding finds out."""
    data = bytearray(open(path, "rb").read())
    out, at = bytearray(data[:8]), 8
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        body = bytes(data[at + 8 : at + 8 + length])
        if kind == b"IDAT":
            body = body[: length // 2]
        out += len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        at += length + 12
    png.verify(bytes(out))
    open(path, "wb").write(out)


#: First column and row, and steps, of the passes of an interlaced PNG (section 8.2).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

DAMAGE = {
    "missing": (os.unlink, "missing"),
    "truncated": (lambda path: os.truncate(path, 200), "truncated"),
    "empty": (lambda path: os.truncate(path, 0), "empty"),
    "other size": (lambda path: Image.new("L", (32, 64)).save(path), "64 x 32 pixels"),
    "sixteen bit": (lambda path: Image.fromarray(np.zeros((64, 64), np.uint16)).save(path), "16 bit"),
    "color": (lambda path: Image.new("RGB", (64, 64)).save(path), "colour type 2"),
    "a folder": (lambda path: (os.unlink(path), os.mkdir(path)), "Is a directory|directory"),
    "a loop of links": (lambda path: (os.unlink(path), os.symlink(path, path)), "symbolic links"),
    "not decodable": (well_formed_but_wrong, "zlib stream|can't be decoded|image data ends"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_fault_has_a_name(copy, kind, decoder, caplog):
    """With raise: one line with site, file and reason; with skip: another site in its place, and a report."""
    dataset = rx.Dataset(copy, dtype="uint8")
    damage, reason = DAMAGE[kind]
    victim, site_id = dataset.catalog.files([13])[0][4], dataset.catalog.table["site_id"].iat[13]
    damage(victim)
    with pytest.raises(rx.SiteError, match=reason) as caught:
        for _ in rx.DataLoader(dataset, batch_size=6):
            pass
    assert (caught.value.site_id, caught.value.path) == (site_id, victim)
    assert "\n" not in str(caught.value)
    assert_no_threads()
    loaders = [rx.DataLoader(dataset, batch_size=6, on_error="skip", num_threads=n) for n in (1, 2)]
    epochs = [[meta["site_index"].tolist() for _, _, meta in loader] for loader in loaders]
    lines = [record.getMessage() for record in caplog.records if record.name == "rxrx_fast"]
    assert len(lines) == 2
    assert all(site_id in line and "\n" not in line for line in lines)
    # The batch keeps its size, and the same site stands in every time.
    assert epochs[0] == epochs[1]
    assert [len(batch) for batch in epochs[0]] == [6] * 8
    bad = dataset.catalog.table.index[13]
    assert bad not in epochs[0][2]
    assert sum(site == bad for batch in epochs[0] for site in batch) == 0
    (fault,) = loaders[0].report()["faults"]
    assert (fault["site_id"], fault["path"]) == (site_id, victim)
    assert re.search(reason, fault["reason"])


def test_rare_but_whole_files_are_decoded(copy):
    """An interlaced grayscale PNG in the middle of ordinary ones comes out as Pillow decodes it."""
    dataset = rx.Dataset(copy, dtype="uint8")
    # A constant picture: seven passes of unfiltered rows, all of them alike.
    rows = b"".join((b"\0" + bytes([77]) * (-(-(64 - x) // dx))) * (-(-(64 - y) // dy)) for x, y, dx, dy in ADAM7)
    body = png.SIGNATURE
    for kind, data in (
        (b"IHDR", (64).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 1])),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        body += len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    path = dataset.catalog.files([9])[0][2]
    open(path, "wb").write(body)
    assert (np.asarray(Image.open(path)) == 77).all()
    images = torch.cat([images for images, _, _ in rx.DataLoader(dataset, batch_size=6)])
    assert (images[9, 2] == 77).all()
    assert not (images[9, 1] == 77).all()


def test_too_many_faults_are_an_error(copy):
    """Past max_errors, skipping stops; each epoch counts anew."""
    dataset = rx.Dataset(copy, dtype="uint8")
    for i in range(5):
        os.unlink(dataset.catalog.files([i])[0][0])
    loader = rx.DataLoader(dataset, batch_size=4, on_error="skip", max_errors=3)
    with pytest.raises(rx.DataError, match="max_errors=3"):
        for _ in loader:
            pass
    assert_no_threads()
    patient = rx.DataLoader(dataset, batch_size=4, on_error="skip", max_errors=12)
    for _ in range(3):
        assert sum(len(labels) for _, labels, _ in patient) == len(dataset)
    faults = patient.report()["faults"]
    assert len(faults) == 5
    assert all(fault["times"] >= 3 and fault["epoch"] == 0 for fault in faults)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=12, unique=True), st.integers(0, 99))
def test_stand_ins_try_everything_once(pool, seed):
    """One after another gives each other sample of the first pool once, then of the second, and then says that none is
    left.
    """
    first, second = np.array(pool), np.arange(100, 108)
    tried = (pool[0],)
    while (instead := stand_in(tried, (first, second), seed, 1, pool[0])) is not None:
        tried = (*tried, instead)
    assert sorted(tried[: len(pool)]) == sorted(pool)
    assert sorted(tried[len(pool) :]) == second.tolist()


# Stand-ins -----------------------------------------------------------------------------------------------------------


def stood_in(dataset, positions, **arguments):
    """{position of a bad site: position of the one in its place} of epoch 2."""
    arguments = {"batch_size": 6, "shuffle": True, "seed": 4, **arguments}
    row = {site: i for i, site in enumerate(dataset.catalog.table.index)}
    loader = rx.DataLoader(dataset, on_error="skip", **arguments)
    loader.set_epoch(2)
    found = {}
    for step, (_, _, meta) in enumerate(loader):
        wanted = loader._order(2)[step]
        for i, site in zip(wanted, meta["site_index"].tolist()):
            if row[site] != i:
                found[int(i)] = row[site]
    assert set(found) <= set(positions)
    return found


@pytest.fixture
def damaged(copy):
    """Bad sites 3, 4, 20 and 33 of 48."""
    dataset = rx.Dataset(copy, dtype="uint8")
    for position in (3, 4, 20, 33):
        os.truncate(dataset.catalog.files([position])[0][1], 100)
    return dataset


def test_a_stand_in_is_a_function_of_seed_epoch_and_site(damaged, copy):
    """The same one with any threads, batches and order, and however many other faults came before."""
    bad = (3, 4, 20, 33)
    found = stood_in(damaged, bad)
    assert set(found) == set(bad)
    assert not set(found.values()) & set(bad)
    for arguments in ({"num_threads": 3}, {"batch_size": 11}, {"shuffle": False}):
        assert stood_in(damaged, bad, **arguments) == found
    assert stood_in(damaged, bad, seed=5) != found
    whole = rx.Dataset(copy, dtype="uint8")
    os.truncate(whole.catalog.files([11])[0][1], 100)
    more = stood_in(whole, (*bad, 11))
    assert {i: more[i] for i in bad if found[i] != 11} == {i: found[i] for i in bad if found[i] != 11}


@pytest.mark.parametrize("level", ["plate", "experiment"])
def test_stand_ins_are_of_the_same_group(damaged, level):
    """With group_by, every batch is still of one group, and counts as many."""
    codes, _ = damaged.catalog.group_keys(level)
    found = stood_in(damaged, (3, 4, 20, 33), group_by=level)
    assert set(found) == {3, 4, 20, 33}
    assert all(codes[i] == codes[j] for i, j in found.items())


def test_stand_ins_are_of_the_same_label(copy):
    """With sites_per_label, the label stays as long as one of its sites can be read, and then another label's comes."""
    dataset = rx.Dataset(copy, dtype="uint8")
    label = next(c for c in dataset.labels if (dataset.labels == c).sum() > 2)
    mine = np.flatnonzero(dataset.labels == label)
    for position in mine[:-1]:
        os.truncate(dataset.catalog.files([position])[0][1], 100)
    arguments = {"sites_per_label": 2, "shuffle": False, "batch_size": 4}
    found = {}
    for seed in range(6):
        found |= stood_in(dataset, mine, seed=seed, **arguments)
    assert found
    assert set(found.values()) == {int(mine[-1])}
    os.truncate(dataset.catalog.files([mine[-1]])[0][1], 100)
    found = {}
    for seed in range(6):
        found |= stood_in(dataset, mine, seed=seed, **arguments)
    assert found
    assert not set(found.values()) & set(mine.tolist())


def test_stand_ins_are_the_samplers(damaged):
    """A sampler's subset stays the subset: no held-out site comes in."""
    subset = [3, 4, 9, 10, 20, 33, 40]
    loader = rx.DataLoader(damaged, 3, sampler=subset, on_error="skip")
    index = damaged.catalog.table.index.to_numpy()
    assert {site for _, _, meta in loader for site in meta["site_index"].tolist()} == set(index[[9, 10, 40]])


def test_a_group_of_nothing_but_damage_is_an_error(copy):
    """Where no site of a plate is left to stand in, that is said, and nothing goes round in circles."""
    dataset = rx.Dataset(copy, dtype="uint8")
    codes, _ = dataset.catalog.group_keys("plate")
    for position in np.flatnonzero(codes == codes[0]):
        os.truncate(dataset.catalog.files([position])[0][1], 100)
    with pytest.raises(rx.DataError, match="none of the 11 sites that could stand in"):
        list(rx.DataLoader(dataset, 6, group_by="plate", on_error="skip"))
    assert_no_threads()
