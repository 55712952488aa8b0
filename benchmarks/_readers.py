"""Ways to read the six files of a site, the clock that compares them, and the page cache.

A reader takes sites (six paths each) and its thread's buffer, reads site by site, and yields the number of bytes.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rxrx_fast.bench.shares import thread_clock

LARGEST = 177_000  # bytes, the largest of RxRx1's files
AHEAD = 8  # sites that a thread has requested from the kernel and not read yet
DROP = Path("/proc/sys/vm/drop_caches")
_LIBC = ctypes.CDLL(None, use_errno=True)


def opened(path: str, buffer: np.ndarray | None) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        return os.readv(descriptor, [np.empty(size, np.uint8) if buffer is None else buffer[:size]])
    finally:
        os.close(descriptor)


def fromfile(sites: Iterator, buffer: np.ndarray) -> Iterator[int]:
    for paths in sites:
        yield sum(np.fromfile(path, np.uint8).size for path in paths)


def builtin_open(sites: Iterator, buffer: np.ndarray) -> Iterator[int]:
    for paths in sites:
        total = 0
        for path in paths:
            with open(path, "rb") as file:
                total += len(file.read())
        yield total


def readv_fresh(sites: Iterator, buffer: np.ndarray) -> Iterator[int]:
    for paths in sites:
        yield sum(opened(path, None) for path in paths)


def readv_recycled(sites: Iterator, buffer: np.ndarray) -> Iterator[int]:
    for paths in sites:
        yield sum(opened(path, buffer) for path in paths)


def mapped(sites: Iterator, buffer: np.ndarray) -> Iterator[int]:
    for paths in sites:
        total = 0
        for path in paths:
            with open(path, "rb", buffering=0) as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
                # The first access to a page reads it.
                view = np.frombuffer(pages, np.uint8)
                view[:: mmap.PAGESIZE].sum()
                total += view.size
                del view
        yield total


def readv_ahead(sites: Iterator, buffer: np.ndarray) -> Iterator[int]:
    """Read as readv_recycled, but open files and request readahead first."""
    waiting: deque[list[int]] = deque()

    def read() -> int:
        total = 0
        for descriptor in waiting.popleft():
            total += os.readv(descriptor, [buffer[: os.fstat(descriptor).st_size]])
            os.close(descriptor)
        return total

    for paths in sites:
        waiting.append([os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths])
        for descriptor in waiting[-1]:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        if len(waiting) > AHEAD:
            yield read()
    while waiting:
        yield read()


METHODS: dict[str, Callable] = {
    "np.fromfile": fromfile,
    "open().read()": builtin_open,
    "os.readv, fresh memory": readv_fresh,
    "os.readv, recycled": readv_recycled,
    f"os.readv, {AHEAD} sites ahead": readv_ahead,
    "mmap": mapped,
}


def measure(method: Callable, order: list, threads: int, seconds: float, again: bool) -> dict:
    """Measure threads that share a list: sites a second, and the parts of their time in seconds a site.

    Ends when the list does (``again`` starts it over) or when the time is up.
    """
    turns, barrier, results = itertools.count(), threading.Barrier(threads), []

    def work() -> None:
        buffer = np.ones(LARGEST, np.uint8)
        barrier.wait()
        start = time.perf_counter()
        ran, ready = thread_clock()
        used = resource.getrusage(resource.RUSAGE_THREAD)

        def sites() -> Iterator:
            while (turn := next(turns)) < len(order) or again:
                if time.perf_counter() - start > seconds:
                    return
                yield order[turn % len(order)]

        done = list(method(sites(), buffer))
        now = resource.getrusage(resource.RUSAGE_THREAD)
        end_ran, end_ready = thread_clock()
        user, system = now.ru_utime - used.ru_utime, now.ru_stime - used.ru_stime
        clocks = (end_ran - ran, end_ready - ready, user, system)
        results.append((start, time.perf_counter(), len(done), sum(done), clocks))

    pool = [threading.Thread(target=work) for _ in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    if len(results) < threads:
        raise RuntimeError("a reading thread failed; its error is above")
    starts, ends, counts, sizes, clocks = zip(*results)
    wall, count = max(ends) - min(starts), sum(counts)
    ran, ready, user, system = np.sum(clocks, axis=0)
    # User and system time are counted in ticks; their sum is known exactly.
    user, system = np.array([user, system]) * ran / max(user + system, 1e-9)
    seconds_a_site = {"user": user, "kernel": system, "asleep": max(wall * threads - ran - ready, 0), "no_core": ready}
    return {
        "sites_per_s": count / wall,
        "bytes_a_site": sum(sizes) / count,
        "parts": {name: float(part) / count for name, part in seconds_a_site.items()},
    }


def evict(paths: list[str], drop: bool) -> None:
    """Evict files from the page cache; with ``drop``, empty all of the kernel's caches."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    if drop:
        DROP.write_text("3\n", encoding="ascii")


def resident(paths: list[str]) -> float:
    """Return the share of the files' pages that are in the page cache."""
    held = total = 0
    for path in paths:
        with open(path, "rb", buffering=0) as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
            view = np.frombuffer(pages, np.uint8)
            flags = np.zeros(-(-view.size // mmap.PAGESIZE), np.uint8)
            address, size = ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(view.size)
            if _LIBC.mincore(address, size, ctypes.c_void_p(flags.ctypes.data)):
                raise OSError(ctypes.get_errno(), "mincore failed")
            held, total = held + int((flags & 1).sum()), total + flags.size
            del view
    return held / total
