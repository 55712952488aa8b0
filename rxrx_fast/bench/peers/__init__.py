"""The other ways of doing the same work, each written as its users would write it for speed.

A contestant is a class with a ``name``, made from a :class:`~rxrx_fast.bench.work.Work`. ``batches(count)`` yields that
many (B, C, H, W) tensors of the work's dtype, going round the list of sites; ``close()`` ends its workers. What is
costly to make (processes, pipelines, repacked files) is made once and kept. When ``batches`` is exhausted nothing may
go on in the background.
"""

from __future__ import annotations

from importlib import import_module

__all__ = ["OTHER_WORK", "PEERS", "load"]

#: Module of each peer, and what to install for it.
PEERS = {
    "torch_cv2": ("torch DataLoader + cv2", "rxrx-fast[bench]"),
    "torch_pil": ("torch DataLoader + PIL", "pillow"),
    "dali": ("DALI", "rxrx-fast[cpu]"),
    "spdl_pipeline": ("SPDL (threads, cv2)", "rxrx-fast[peers]"),
    "webdataset_tar": ("WebDataset (tar shards of the PNGs)", "rxrx-fast[peers]"),
    "litdata_chunks": ("LitData (chunks of the PNGs)", "rxrx-fast[peers]"),
    "monai_loader": ("MONAI Dataset + ThreadDataLoader", "rxrx-fast[peers]"),
    "monai_cache": ("MONAI CacheDataset (decoded pixels in memory)", "rxrx-fast[peers]"),
}

#: Rows whose pixels are right, but which have less to do while the clock runs than everybody else: name and reason.
OTHER_WORK = {
    PEERS["monai_cache"][0]: "all sites were decoded before the clock started, and stay in memory",
}


def load(module: str) -> type:
    """The contestant's class. Raises ImportError, with what to install, where its package is missing."""
    _, package = PEERS[module]
    try:
        return import_module(f"{__name__}.{module}").Peer
    except ImportError as error:
        raise ImportError(f"{error}; install {package}") from None
