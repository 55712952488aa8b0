"""Where a site's bytes are. Callers get a store from :func:`open_store` and know it as a :class:`Store`.

=================  ================================================================================================
file               what it holds
=================  ================================================================================================
``base.py``        ``Store``: sites as pixels, in batches; ``EncodedStore``: also as encoded files
``files.py``       ``FileStore``: PNG, TIFF and other image files in a folder
``image_file.py``  one encoded file: its header, its checks, its pixels by Pillow or tifffile
``tiff.py``        one TIFF file: its header, and its pixels of 8 or 16 bits
``file_io.py``     system calls: read a file, ask whether it is in the page cache, fetch it
``readahead.py``   ``Readahead``: batches, while a thread has the files of later ones fetched
=================  ================================================================================================

To add a store, write a subclass of ``Store`` in a file here, let :func:`open_store` pick it, and inherit its tests from
``tests/conformance/stores.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rxrx_fast.stores.base import EncodedStore, Store
from rxrx_fast.stores.files import FileStore

if TYPE_CHECKING:
    from rxrx_fast.catalog import Catalog

__all__ = ["EncodedStore", "Store", "open_store"]


def open_store(catalog: Catalog, channels: Sequence[int] | None = None) -> Store:
    """Open the store that holds a catalog's sites. Nothing else picks one.

    Parameters
    ----------
    catalog : Catalog
        Its rows are the store's positions.
    channels : sequence of int, optional
        Channel numbers, from 1, in the order of the output. By default, all.
    """
    return FileStore(catalog, range(1, catalog.layout.channels + 1) if channels is None else channels)
