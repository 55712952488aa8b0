"""An exhausted GPU, as one line that says what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rxrx_fast.errors import UsageError

__all__ = ["explained"]

# How torch, DALI, Numba and the driver say it.
_SIGNS = ("out of memory", "out_of_memory", "bad_alloc", "cudaerrormemoryallocation", "can't allocate")


@contextmanager
def explained(device: int | None, batch_size: int, doing: str) -> Iterator[None]:
    """Turn what the libraries raise for a lack of GPU memory into one line; let other errors pass.

    Parameters
    ----------
    device : int or None
        With None every error passes: on the CPU it means something else.
    batch_size : int
    doing : str
        As in "while decoding".

    Raises
    ------
    UsageError
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = f"{type(error).__name__} {error}".lower()
        if device is None or not any(sign in text for sign in _SIGNS):
            raise
        raise UsageError(
            f"GPU {device} has no memory left while {doing} a batch of {batch_size} sites{_state(device)}: lower "
            f"batch_size={batch_size}, then prefetch_factor, views or size, or leave more memory to the loader"
        ) from error


def _state(device: int) -> str:
    """Say how full the card is, if the driver still answers."""
    try:
        free, total = torch.cuda.mem_get_info(device)
    except Exception:
        return ""
    return f" ({free / 2**30:.1f} of {total / 2**30:.1f} GiB are free)"
