"""The other ways of doing the same work, each written as its users would write it for speed.

A contestant is a class with a ``name``, made from a :class:`~rxrx_fast.bench.work.Work`. ``batches(count)`` yields that
many (B, C, H, W) float32 tensors, going round the list of sites; ``close()`` ends its workers. What is costly to make
(processes, pipelines) is made once and kept. When ``batches`` is exhausted nothing may go on in the background.
"""

from __future__ import annotations

from importlib import import_module

__all__ = ["PEERS", "load"]

#: Module of each peer, and what to install for it.
PEERS = {
    "torch_cv2": ("torch DataLoader + cv2", "rxrx-fast[bench]"),
    "torch_pil": ("torch DataLoader + PIL", "pillow"),
    "dali": ("DALI", "rxrx-fast[cpu]"),
}


def load(module: str) -> type:
    """The contestant's class. Raises ImportError, with what to install, where its package is missing."""
    name, package = PEERS[module]
    try:
        return import_module(f"{__name__}.{module}").Peer
    except ImportError as error:
        raise ImportError(f"{error}; install {package}") from None
