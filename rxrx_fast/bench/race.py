"""Contestants take turns at the same work, after a check that they all do it."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from rxrx_fast.bench.work import Work
from rxrx_fast.errors import DataError

__all__ = ["Row", "check", "run", "unwound"]

# The contestants divide, or multiply by a reciprocal, in float32: a few units in the last place apart.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-4
# The largest relative error of a rounding to nearest: half of the last of eleven bits.
_ROUNDING = {"float32": 0.0, "float16": 2.0**-11}


@dataclass
class Row:
    """A contestant and its measured rates, sites a second, one a round."""

    contestant: object
    runs: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.contestant.name

    @property
    def sites_per_s(self) -> float:
        return statistics.median(self.runs)


def check(contestant: type, work: Work) -> None:
    """Raise DataError unless a contestant delivers the reference's pixels, in order, over two passes of the list.

    With float16 they may differ by its rounding more, and by no more than that.

    Parameters
    ----------
    work : Work
        A few sites, without augmentation.
    """
    made = contestant(work)
    try:
        position = 0
        count = -(-len(work) // work.batch_size)
        relative = _RELATIVE + _ROUNDING[work.dtype]
        for _ in range(2):
            for images in made.batches(count):
                if images.dtype != work.torch_dtype:
                    raise DataError(f"{made.name} does not do the same work: it delivers {images.dtype}")
                for image in images.float().cpu().numpy():
                    reference = work.reference(position % len(work))
                    if image.shape != reference.shape or not np.allclose(image, reference, relative, _ABSOLUTE):
                        site = work.catalog.table["site_id"].iat[position % len(work)]
                        raise DataError(f"{made.name} does not do the same work: its pixels of site {site} differ")
                    position += 1
        if position != 2 * count * work.batch_size:
            raise DataError(f"{made.name} delivered {position} sites instead of {2 * count * work.batch_size}")
    finally:
        made.close()


def run(
    contestants: Iterable, work: Work, *, rounds: int, seconds: float, tick: Callable[[str], None] = lambda name: None
) -> list[Row]:
    """Warm everyone up, then let them take turns, round by round.

    A turn is a whole pass: it begins with nothing in flight and ends when the last batch is delivered, so nobody
    gains from batches made ready before, and nobody works on while another is timed.

    Parameters
    ----------
    contestants : iterable
        See :mod:`rxrx_fast.bench.peers`.
    rounds : int
    seconds : float
        About how long a turn takes; the number of batches follows from the rate of the second warm-up turn.
    tick : callable
        Called with the contestant's name after each turn, warm-ups included.
    """
    rows = [Row(contestant) for contestant in contestants]
    # A multiple of the workers, so that none of them stands idle while another makes the last batch.
    least = 2 * work.threads
    batches = {}
    for row in rows:
        _turn(row.contestant, work, work.threads)
        rate = _turn(row.contestant, work, least)
        tick(row.name)
        batches[row.name] = max(least, round(rate * seconds / work.batch_size / least) * least)
    for number in range(rounds):
        # Everyone starts a round once in a while: what a machine does every so often then hits nobody in particular.
        first = number % len(rows)
        for row in rows[first:] + rows[:first]:
            _wait_for_quiet()
            row.runs.append(_turn(row.contestant, work, batches[row.name]))
            tick(row.name)
    return rows


@contextmanager
def unwound() -> Iterator[None]:
    """Within, a request to end the process (SIGTERM, SIGHUP) unwinds it, so that contestants remove what they wrote.

    Signals that the program handles or ignores by itself are left alone, and all of them are outside of the main
    thread, which alone may set them.
    """
    numbers = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def end(number, frame):
        for each in ours:
            # Asked twice, it is on its way already.
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _turn(contestant, work: Work, count: int) -> float:
    """Sites a second of one pass over ``count`` batches."""
    sites = 0
    start = time.perf_counter()
    for images in contestant.batches(count):
        sites += len(images)
    if work.device == "cuda":
        import torch

        torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    if sites != count * work.batch_size:
        raise DataError(f"{contestant.name} delivered {sites} sites instead of {count * work.batch_size}")
    return sites / elapsed


def _wait_for_quiet(limit: float = 5.0) -> None:
    """Until this process's threads use next to no time: what a contestant left behind must not slow the next one."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        used, start = time.process_time(), time.perf_counter()
        time.sleep(0.05)
        if time.process_time() - used < 0.1 * (time.perf_counter() - start):
            return
