"""The choice of a decoder: by what the store holds, what is installed, and, with a GPU, by a short measurement.

For 8-bit grayscale PNG and a GPU, neither the host's cores nor the GPU are always faster. The host decodes some 500
sites a second and core; the GPU decodes a stream slowly and thousands at once, so it wants large batches. Both are
measured on the files at hand, for as long as a batch takes, and the faster one gets the work.
``RXRX_FAST_DECODE=host`` or ``gpu`` decides without measuring.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import torch
from rxrx_kernels.png import files as png

from rxrx_fast.decode.base import Decoder, Setup
from rxrx_fast.decode.cuda import CudaDecoder
from rxrx_fast.decode.cuda_png import PngLauncher
from rxrx_fast.decode.dali import DaliDecoder
from rxrx_fast.decode.dali_spine import import_dali, require_dali
from rxrx_fast.decode.host import HostDecoder
from rxrx_fast.errors import SiteError, UsageError
from rxrx_fast.runtime.buffers import Buffers
from rxrx_fast.stores.base import EncodedStore, Store

__all__ = ["Choice", "choose", "choose_decoder", "choose_spine", "compare", "measure", "wanted"]

# Sites read for the measurement; its batches repeat them.
_SITES = 8
_ROUNDS = 3
# Compressed batches in memory at once: those being decoded, and the one being packed.
_BATCHES_AT_ONCE = 8


class Choice(NamedTuple):
    """``path`` is "host" or "gpu", ``why`` a clause for people; rates are in sites a second, None if not measured."""

    path: str
    why: str
    host_rate: float | None = None
    gpu_rate: float | None = None


def wanted() -> str:
    """Return what ``RXRX_FAST_DECODE`` asks for: "auto", "host" or "gpu".

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
    """Choose the faster of two measured rates, in sites a second."""
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
    pool: Executor,
    threads: int,
    device: int,
) -> Choice:
    """Decode the same sites on the host and on the GPU, and choose the faster.

    Parameters
    ----------
    sites : list of lists of C arrays
        Encoded files of a few sites.
    image_size : (int, int)
    batch : int
        Sites a batch, made of these.
    pool : Executor
        With at least ``threads`` threads, all idle.
    threads : int
        Threads that decode on the host.
    device : int
    """
    return compare(
        _host_rate(sites, image_size, pool, threads), _gpu_rate(sites, image_size, pool, batch, device), threads, batch
    )


def _host_rate(sites: list[list[np.ndarray]], image_size: tuple[int, int], pool: Executor, threads: int) -> float:
    out = np.empty((threads, len(sites[0]), *image_size), np.uint8)
    tasks = [(sites[i % len(sites)], out[i]) for i in range(threads)]

    def decode(task: tuple[list[np.ndarray], np.ndarray]) -> None:
        for _ in range(4):
            png.decode_files(*task)

    # The first round compiles, and touches the memory.
    list(pool.map(decode, tasks))
    start = time.perf_counter()
    list(pool.map(decode, tasks))
    return 4 * threads / (time.perf_counter() - start)


def _gpu_rate(
    sites: list[list[np.ndarray]], image_size: tuple[int, int], pool: Executor, batch: int, device: int
) -> float:
    """Sites a second from files in host memory to pixels on the GPU; as many batches in flight as the pipeline has."""
    buffers = Buffers(_BATCHES_AT_ONCE, pinned=True)
    whole = [sites[i % len(sites)] for i in range(batch)]
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        launcher = PngLauncher(device, stream.cuda_stream, image_size, len(sites[0]), buffers, batch=batch)

        def run(count: int) -> bool:
            launched: deque = deque()
            for turn in range(count + launcher.depth - 1):
                if turn < count:
                    packed = launcher.pack(whole, pool)
                    with torch.cuda.stream(stream):
                        data = torch.from_numpy(packed.buffer).to(f"cuda:{device}", non_blocking=True)
                    launched.append(launcher.launch(data, packed))
                if turn >= launcher.depth - 1 and launcher.settle(launched.popleft()):
                    return False
            return True

        # The first round compiles the kernels, and touches the memory.
        if not run(launcher.depth):
            return 0.0
        count = _ROUNDS * launcher.depth
        start = time.perf_counter()
        run(count)
        return count * batch / (time.perf_counter() - start)


_measured: dict[tuple, Choice] = {}
_lock = threading.Lock()


def choose_spine(device_id: int | None) -> str:
    """Choose what carries batches, "dali" or "queue": DALI if it is installed, unless ``RXRX_FAST_SPINE`` names one.

    Raises
    ------
    UsageError
        If ``RXRX_FAST_SPINE`` is something else, or DALI is missing and a GPU or the environment wants it.
    """
    asked = os.environ.get("RXRX_FAST_SPINE", "auto")
    if asked not in ("auto", "dali", "queue"):
        raise UsageError(f"RXRX_FAST_SPINE={asked!r}: must be 'auto', 'dali' or 'queue'")
    if device_id is not None and asked == "queue":
        raise UsageError("RXRX_FAST_SPINE='queue', but a GPU needs DALI: unset it, or take device='cpu'")
    if device_id is not None or asked == "dali":
        require_dali()
        return "dali"
    return "queue" if asked == "queue" or import_dali() is None else "dali"


def choose_decoder(setup: Setup, spine: str) -> Decoder:
    """Make the decoder for a store. Nothing else picks one.

    Parameters
    ----------
    setup : Setup
    spine : {"dali", "queue"}
        With a queue nothing is decoded by DALI: the host takes its files.
    """
    store, target = setup.store, setup.target
    if spine == "dali" and store.decoders[0] == "dali":
        return DaliDecoder(setup)
    choice = choose(store, batch=setup.batch_size, pool=setup.pool, threads=setup.num_threads, device=target.device_id)
    return CudaDecoder(setup) if choice.path == "gpu" else HostDecoder(setup)


def choose(store: Store, *, batch: int, pool: Executor, threads: int, device: int | None) -> Choice:
    """Choose between host and GPU; measure once a process for each kind of file, batch, device and thread count.

    Parameters
    ----------
    store : Store
    batch : int
        Sites a batch.
    pool : Executor
    threads : int
    device : int or None
        None for a loader without a GPU.
    """
    if device is None:
        return Choice("host", "the batches are made on the CPU")
    if "cuda" not in store.decoders or not isinstance(store, EncodedStore):
        return Choice("host", "the files are not 8-bit grayscale PNG, or libdeflate is missing")
    asked = wanted()
    if asked != "auto":
        return Choice(asked, f"RXRX_FAST_DECODE={asked}")
    key = (store.image_size, store.files_per_site, batch, threads, device)
    # One at a time: two measurements would measure each other.
    with _lock:
        if key not in _measured:
            sites = _readable(store)
            if not sites:
                return Choice("host", "none of the first sites can be read")
            _measured[key] = measure(sites, store.image_size, batch=batch, pool=pool, threads=threads, device=device)
        return _measured[key]


def _readable(store: EncodedStore) -> list[list[np.ndarray]]:
    """Files of the first sites that decode."""
    sites: list[list[np.ndarray]] = []
    for position in range(min(len(store), 2 * _SITES)):
        (files,) = store.read([position])
        if isinstance(files, SiteError) or store.faults([position], [files])[0] is not None:
            continue
        sites.append(files)
        if len(sites) == _SITES:
            break
    return sites
