"""Damaged files: each has a name, a reason and a place in the report, and costs one line and not the run."""

import os
import re
import zlib

import numpy as np
import pytest
import torch
from loading import assert_no_threads
from PIL import Image
from rxrx_kernels import png

import rxrx_fast as rx


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
    assert (caught.value.site_id, caught.value.path) == (site_id, victim) and "\n" not in str(caught.value)
    assert_no_threads()
    loaders = [rx.DataLoader(dataset, batch_size=6, on_error="skip", num_threads=n) for n in (1, 2)]
    epochs = [[meta["site_index"].tolist() for _, _, meta in loader] for loader in loaders]
    lines = [record.getMessage() for record in caplog.records if record.name == "rxrx_fast"]
    assert len(lines) == 2 and all(site_id in line and "\n" not in line for line in lines)
    # The batch keeps its size, and the same site stands in every time.
    assert epochs[0] == epochs[1] and [len(batch) for batch in epochs[0]] == [6] * 8
    bad = dataset.catalog.table.index[13]
    assert bad not in epochs[0][2] and sum(site == bad for batch in epochs[0] for site in batch) == 0
    (fault,) = loaders[0].report()["faults"]
    assert (fault["site_id"], fault["path"]) == (site_id, victim) and re.search(reason, fault["reason"])


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
    assert (images[9, 2] == 77).all() and not (images[9, 1] == 77).all()


def test_too_many_faults_are_an_error(copy):
    """Past max_errors, skipping stops."""
    dataset = rx.Dataset(copy, dtype="uint8")
    for i in range(5):
        os.unlink(dataset.catalog.files([i])[0][0])
    loader = rx.DataLoader(dataset, batch_size=4, on_error="skip", max_errors=3)
    with pytest.raises(rx.DataError, match="max_errors=3"):
        for _ in loader:
            pass
    assert_no_threads()
