"""The pixels that pictures are made of, decoded in this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rxrx_fast.catalog import Catalog
from rxrx_fast.stores import open_store

__all__ = ["image_size", "read_pixels"]


def read_pixels(catalog: Catalog, channels: Sequence[int]) -> np.ndarray:
    """Decode all sites of a catalog, (N, C, H, W); channels count from 1.

    Raises
    ------
    SiteError
        At the first site that can't be read.
    """
    return open_store(catalog, channels).pixels(range(len(catalog)))


def image_size(catalog: Catalog) -> tuple[int, int]:
    """Return the (height, width) of a catalog's images in pixels."""
    return open_store(catalog).image_size
