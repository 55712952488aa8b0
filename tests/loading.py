"""What the tests of the loader share."""

import threading
import time

import numpy as np
from PIL import Image

import rxrx_fast as rx

#: Every kind of draw that there is.
POLICY = rx.Policy(hflip=0.5, vflip=0.5, rot90=1.0, stats_jitter=0.1)


def pillow_pixels(catalog, i):
    """(6, H, W) uint8 of site i, as Pillow decodes it."""
    return np.stack([np.asarray(Image.open(path)) for path in catalog.files([i], (1, 2, 3, 4, 5, 6))[0]])


def threads():
    """The loader's threads that are alive."""
    return [t for t in threading.enumerate() if t.name.startswith("rxrx_fast")]


def assert_no_threads():
    """They are gone, or go within seconds."""
    end = time.monotonic() + 20
    while threads() and time.monotonic() < end:
        time.sleep(0.02)
    assert not threads()


def by_site(loader):
    """{site_index: image or views} over one epoch, as copies."""
    found = {}
    for images, labels, meta in loader:
        for i, site in enumerate(meta["site_index"].tolist()):
            assert site not in found
            found[site] = tuple(v[i].clone() for v in images) if isinstance(images, tuple) else images[i].clone()
    return found
