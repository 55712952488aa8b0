"""Who decodes PNG for a GPU: the host's cores or the GPU itself, decided by a short measurement.

Neither is always faster. The host decodes some 500 sites a second and core; the GPU decodes a stream slowly and
thousands at once, so it wants large batches. Both are measured on the files at hand, for as long as a batch takes, and
the faster one gets the work. ``RXRX_FAST_DECODE=host`` or ``gpu`` decides without measuring.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from rxrx_kernels.png import files as png

from rxrx_fast.decode.cuda import GpuDecoder
from rxrx_fast.errors import UsageError
from rxrx_fast.runtime.buffers import Buffers

__all__ = ["Choice", "choose", "measure", "wanted"]

# Sites that are read for the measurement; a batch is made of them again and again.
_SITES = 8
_ROUNDS = 3
# Compressed batches in memory: those that are decoded, and the one that is packed.
_BATCHES_AT_ONCE = 8


class Choice(NamedTuple):
    """``path`` is "host" or "gpu", ``why`` a clause for people; rates in sites a second, None where not measured."""

    path: str
    why: str
    host_rate: float | None = None
    gpu_rate: float | None = None


def wanted() -> str:
    """ "auto", "host" or "gpu": what the environment asks for.

    Raises
    ------
    UsageError
        If ``RXRX_FAST_DECODE`` is something else.
    """
    found = os.environ.get("RXRX_FAST_DECODE", "auto")
    if found not in ("auto", "host", "gpu"):
        raise UsageError(f"RXRX_FAST_DECODE={found!r}: must be 'auto', 'host' or 'gpu'")
    return found


def compare(host_rate: float, gpu_rate: float, threads: int, batch: int) -> Choice:
    """The faster of two measured rates, in sites a second."""
    path = "gpu" if gpu_rate > host_rate else "host"
    why = (
        f"measured {gpu_rate:,.0f} sites/s on the GPU in batches of {batch}, {host_rate:,.0f} on the host with "
        f"{threads} thread{'s' if threads > 1 else ''}"
    )
    return Choice(path, why, host_rate, gpu_rate)


def measure(
    sites: list[list[np.ndarray]],
    image_size: tuple[int, int],
    *,
    batch: int,
    pool: ThreadPoolExecutor,
    threads: int,
    device: int,
) -> Choice:
    """Decode the same sites on the host and on the GPU.

    Parameters
    ----------
    sites : list of lists of C arrays
        Encoded files of a few sites.
    image_size : (int, int)
    batch : int
        Sites a batch, made of these.
    pool : ThreadPoolExecutor
        With at least ``threads`` threads, all idle.
    threads : int
        Threads that decode on the host.
    device : int
    """
    return compare(
        _host_rate(sites, image_size, pool, threads), _gpu_rate(sites, image_size, pool, batch, device), threads, batch
    )


def _host_rate(sites, image_size, pool, threads) -> float:
    out = np.empty((threads, len(sites[0]), *image_size), np.uint8)
    turns = [(sites[i % len(sites)], out[i]) for i in range(threads)]

    def decode(turn):
        for _ in range(4):
            png.decode_files(*turn)

    list(pool.map(decode, turns))
    start = time.perf_counter()
    list(pool.map(decode, turns))
    return 4 * threads / (time.perf_counter() - start)


def _gpu_rate(sites, image_size, pool, batch, device) -> float:
    """From files in host memory to pixels on the GPU, as many batches in flight as the pipeline has."""
    buffers = Buffers(_BATCHES_AT_ONCE, pinned=True)
    whole = [sites[i % len(sites)] for i in range(batch)]
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        decoder = GpuDecoder(device, stream.cuda_stream, image_size, len(sites[0]), buffers, batch=batch)

        def run(count: int) -> bool:
            launched: deque = deque()
            for turn in range(count + decoder.depth - 1):
                if turn < count:
                    packed = decoder.pack(whole, pool)
                    with torch.cuda.stream(stream):
                        data = torch.from_numpy(packed.buffer).to(f"cuda:{device}", non_blocking=True)
                    launched.append(decoder.launch(data, packed))
                if turn >= decoder.depth - 1 and decoder.settle(launched.popleft()):
                    return False
            return True

        # Compiles the kernels, and touches the memory.
        if not run(decoder.depth):
            return 0.0
        count = _ROUNDS * decoder.depth
        start = time.perf_counter()
        run(count)
        return count * batch / (time.perf_counter() - start)


_made: dict[tuple, Choice] = {}
_lock = threading.Lock()


def choose(store, *, batch: int, pool: ThreadPoolExecutor, threads: int, device: int | None) -> Choice:
    """Who decodes this store's files; measured once a process for each kind of file, batch, device and thread count.

    Parameters
    ----------
    store : FileStore
    batch : int
        Sites a batch.
    pool : ThreadPoolExecutor
    threads : int
    device : int or None
        None for a loader without a GPU.
    """
    if device is None:
        return Choice("host", "the batches are made on the CPU")
    if not store.decodes or store.dtype != np.uint8:
        return Choice("host", "the files are not 8-bit grayscale PNG, or libdeflate is missing")
    asked = wanted()
    if asked != "auto":
        return Choice(asked, f"RXRX_FAST_DECODE={asked}")
    key = (store.image_size, store.files_per_site, batch, threads, device)
    # One at a time: two measurements would measure each other.
    with _lock:
        if key not in _made:
            sites = _readable(store)
            if not sites:
                return Choice("host", "none of the first sites can be read")
            _made[key] = measure(sites, store.image_size, batch=batch, pool=pool, threads=threads, device=device)
        return _made[key]


def _readable(store) -> list[list[np.ndarray]]:
    """The files of the first sites that decode."""
    sites = []
    for position in range(min(len(store), 2 * _SITES)):
        try:
            files = store.load(position)
            store.pixels(position)
        except ValueError:
            continue
        sites.append(files)
        if len(sites) == _SITES:
            break
    return sites
