"""What the tests of the loader share."""

import hashlib
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import rxrx_fast as rx

#: Real files, where they are present.
#: Helpers and scripts that tests run in processes of their own.
SUPPORT = Path(__file__).resolve().parent
REAL = SUPPORT.parents[2] / "shared" / "data"

#: Every kind of draw that there is.
POLICY = rx.Policy(
    hflip=0.5, vflip=0.5, rot90=1.0, stats_jitter=0.1, affine=0.7, rotate=20, zoom=(0.8, 1.2), shift=0.1, crop=(0.7, 1),
    erase=0.5, gain=0.1, offset=0.1, gamma=0.2, noise=(0, 5), shot=(0, 1), noise_p=0.5, elastic=2, elastic_p=0.3,
    channel_dropout=0.1, channel_shuffle=0.2, blur=(0.5, 1.5), blur_p=0.3,
)  # fmt: skip

#: Every kind of order that the loader makes itself.
PLANS = {
    "plain": {"shuffle": True},
    "in order": {},
    "grouped": {"shuffle": True, "group_by": "plate"},
    "whole groups": {"shuffle": True, "group_by": "experiment", "whole_groups": True},
    "balanced": {"balance_by": "experiment"},
    "labels x sites": {"sites_per_label": 2},
}


def pillow_pixels(catalog, i):
    """(6, H, W) uint8 of site i, as Pillow decodes it."""
    return np.stack([np.asarray(Image.open(path)) for path in catalog.files([i], (1, 2, 3, 4, 5, 6))[0]])


def interruptible():
    """For ``preexec_fn``: a shell's background jobs are started deaf to SIGINT, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def threads():
    """The loader's threads that are alive."""
    return [t for t in threading.enumerate() if t.name.startswith("rxrx_fast")]


def assert_no_threads():
    """They are gone, or go within seconds."""
    end = time.monotonic() + 20
    while threads() and time.monotonic() < end:
        time.sleep(0.02)
    frames = sys._current_frames()
    left = {t.name: traceback.format_stack(frames[t.ident])[-3:] for t in threads() if t.ident in frames}
    assert not left, left


def by_site(loader):
    """{site_index: image or views} over one epoch, as copies."""
    found = {}
    for images, _labels, meta in loader:
        for i, site in enumerate(meta["site_index"].tolist()):
            assert site not in found
            found[site] = tuple(v[i].clone() for v in images) if isinstance(images, tuple) else images[i].clone()
    return found


def digest(image) -> str:
    """An image, or a view of one, in sixteen digits."""
    return hashlib.blake2b(image.contiguous().numpy().tobytes(), digest_size=8).hexdigest()


def told(batch):
    """What one rank saw in a batch, in order: [site_index, digest of the pixels] of each sample that is no padding."""
    images, _, meta = batch
    repeated = meta.get("repeated", torch.zeros(len(images)))
    sites = meta["site_index"].tolist()
    return [[site, digest(image)] for site, image, again in zip(sites, images, repeated) if not again]


def together(loaders):
    """Each global batch of an epoch, from the loaders of all ranks."""
    return [sum(map(told, batches), []) for batches in zip(*loaders, strict=True)]
