"""Who waited for whom: clocks of the loader's stages and of its consumer."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

__all__ = ["Meter"]

T = TypeVar("T")

# Quantiles are of the last 4,096 batches: memory must not grow with the run, and old batches say little.
_REMEMBERED = 4096
_QUANTILES = (50, 90, 99)

# Below this share of waiting, the model is the bottleneck.
_IO_BOUND = 0.05

#: Groups of stages in plain words, and what helps if one is the bottleneck. Other stages go by their own names.
_WORK = {
    "reading the files": (("read",), "use more {workers} or a faster disk"),
    "decoding": (("inflate", "unfilter", "decode"), "use more {workers} or a smaller size"),
    "the fused kernel": (("finish",), "use more {workers}, fewer views or dtype='float16'"),
}
# Waiting for a free place in the queue, which is not work.
_IDLE = "deliver"


class Meter:
    """How long each stage worked, and how long the consumer waited for a batch against how long it worked on one.

    ``waited`` and ``worked`` are seconds of the consumer's; ``waited_for_first`` is the part of ``waited`` that went to
    the first batch of an epoch. ``stages`` holds seconds of threads at work, by stage: ``read``, ``inflate`` (with the
    checks of the PNG container), ``unfilter``, ``finish`` (the fused kernel). Where DALI decodes, ``decode`` takes the
    place of the two in the middle, and its threads are taken to work for as long as a batch is waited for. ``deliver``
    is the wait for a free place in the queue, of the one thread that delivers: where it is large, the model is the
    limit.

    The consumer's clock is the host's: a model on a GPU whose work is queued may be busy while the host waits here.

    Parameters
    ----------
    workers : str
        What more of would help, for the advice: "threads", or "cores" where there is a thread for each already.
    """

    def __init__(self, workers: str = "threads"):
        self._workers = workers
        self.stages: dict[str, float] = defaultdict(float)
        self.sites = self.batches = self._made = 0
        self.waited = self.worked = self.waited_for_first = 0.0
        self._waits: deque[float] = deque(maxlen=_REMEMBERED)
        self._depths: deque[int] = deque(maxlen=_REMEMBERED)
        self._handed_over: float | None = None
        self._lock = threading.Lock()

    # Events ----------------------------------------------------------------------------------------------------------

    def add(self, name: str, seconds: float) -> None:
        """Count seconds of a stage, from any thread."""
        with self._lock:
            self.stages[name] += seconds

    def timed(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function and count its time for a stage."""
        start = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            self.add(name, time.perf_counter() - start)

    def made(self, sites: int) -> None:
        """Count a finished batch, which the consumer may not have yet."""
        self._made += sites

    def asked(self, depth: int) -> float:
        """Note that the consumer asks for a batch while ``depth`` are ready; return the time. Its work ends here."""
        now = time.perf_counter()
        self._depths.append(depth)
        if self._handed_over is not None:
            self.worked += now - self._handed_over
        return now

    def delivered(self, asked: float, sites: int) -> None:
        """Note that the consumer gets a batch that it asked for at this time. Its work begins here."""
        first = self._handed_over is None
        self._handed_over = time.perf_counter()
        waited = self._handed_over - asked
        self.waited += waited
        self._waits.append(waited)
        self.batches += 1
        self.sites += sites
        if first:
            self.waited_for_first += waited

    def paused(self) -> None:
        """Note that the epoch is over: what the consumer does until the next one does not count."""
        self._handed_over = None

    # Figures ----------------------------------------------------------------------------------------------------------

    @property
    def waiting_share(self) -> float:
        """Share of the consumer's time that it waited for data, 0 to 1; 0 before the first batch."""
        total = self.waited + self.worked
        return self.waited / total if total else 0.0

    @property
    def rate(self) -> float:
        """Sites a second of the consumer's time; 0 before the first batch."""
        total = self.waited + self.worked
        return self.sites / total if total else 0.0

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage so far, as a copy."""
        with self._lock:
            return dict(self.stages)

    def rates(self) -> dict[str, float]:
        """Return the sites a second that one thread gets through each stage."""
        return {name: self._made / s for name, s in self.seconds().items() if name != _IDLE and s > 0}

    def depths(self) -> dict[str, int]:
        """Return quantiles (p50, p90, p99) of the batches that were ready when the consumer asked for one."""
        return {f"p{q}": int(np.percentile(self._depths, q, method="nearest")) for q in _QUANTILES if self._depths}

    def waits(self) -> dict[str, float]:
        """Return quantiles (p50, p90, p99) of the wait for one batch, in seconds."""
        return {f"p{q}": float(np.percentile(self._waits, q)) for q in _QUANTILES if self._waits}

    def report(self) -> dict:
        """Return all figures by name; see :meth:`rxrx_fast.DataLoader.report`."""
        return {
            "sentence": self.sentence(),
            "sites": self.sites,
            "batches": self.batches,
            "waited_s": self.waited,
            "worked_s": self.worked,
            "waited_for_first_s": self.waited_for_first,
            "waiting_share": self.waiting_share,
            "stages_s": self.seconds(),
            "rates": self.rates(),
            "queue_depth": self.depths(),
            "wait_s": self.waits(),
        }

    def scalars(self) -> dict[str, float]:
        """Return all numbers in one flat dictionary, for a logger."""
        flat = {"sites_per_s": self.rate, "waiting_share": self.waiting_share}
        flat |= {"sites": float(self.sites), "batches": float(self.batches)}
        flat |= {f"queue_depth_{name}": float(value) for name, value in self.depths().items()}
        flat |= {f"wait_s_{name}": value for name, value in self.waits().items()}
        flat |= {f"stage_{name}_s": value for name, value in self.seconds().items()}
        return flat | {f"stage_{name}_sites_per_s": value for name, value in self.rates().items()}

    def limit(self) -> tuple[str, str] | None:
        """Return what takes most of the threads' time, in words, and what helps; None before any work."""
        seconds = self.seconds()
        seconds.pop(_IDLE, None)
        work = []
        for words, (stages, advice) in _WORK.items():
            work.append((sum(seconds.pop(stage, 0.0) for stage in stages), words, advice))
        work += [(spent, f"the stage {name!r}", "use more {workers}") for name, spent in seconds.items()]
        spent, words, advice = max(work)
        return (words, advice.format(workers=self._workers)) if spent > 0 else None

    def sentence(self) -> str:
        """Say in one sentence whether the model waits, what for, and what helps."""
        if not self.batches:
            return "No batch was delivered yet."
        share = self.waiting_share
        ran = f"{self.sites} sites in {self.waited + self.worked:.1f} s, {self.rate:.0f} sites/s"
        if share < _IO_BOUND:
            return f"Not IO-bound: the model waited {share:.0%} of the time ({ran})."
        # The pipeline is empty at the start of an epoch, which says nothing about the pace afterwards.
        first = min(self.waited_for_first, self.waited)
        if self.waited - first < _IO_BOUND * (self.waited - first + self.worked):
            return f"Not IO-bound: the model waited {share:.0%} of the time, for the first batch of an epoch ({ran})."
        words, advice = self.limit() or ("an unknown stage", "loader.report() has the figures")
        return f"IO-bound: the model waited {share:.0%} of the time; {words} is the limit; {advice} ({ran})."
