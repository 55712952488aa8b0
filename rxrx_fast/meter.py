"""Who waited for whom: clocks of the loader's stages and of its consumer."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

__all__ = ["Meter"]

#: What can be the limit, and the stages that it consists of.
_WORK = {
    "reading the files": ("read",),
    "decoding": ("decode", "inflate", "unfilter"),
    "the fused kernel": ("finish",),
}


class Meter:
    """How long each stage worked, and how long the consumer waited for a batch against how long it worked on one.

    ``stages`` holds seconds of threads at work: ``read``, ``inflate`` (with the checks of the PNG container),
    ``unfilter`` and ``finish`` (the fused kernel). Where DALI decodes, ``decode`` takes the place of the two in the
    middle, and its threads are taken to work for as long as a batch is waited for. ``deliver`` is the wait for a free
    place in the queue, of the one thread that delivers: where it is large, the model is the limit.
    """

    def __init__(self):
        self.stages: dict[str, float] = defaultdict(float)
        self.sites = self.batches = 0
        self.waited = self.worked = 0.0
        self._handed_over: float | None = None
        self._lock = threading.Lock()

    def add(self, name: str, seconds: float) -> None:
        """Count seconds of a stage, from any thread."""
        with self._lock:
            self.stages[name] += seconds

    def timed(self, name: str, function, *arguments):
        """Call a function and count its time."""
        start = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            self.add(name, time.perf_counter() - start)

    def asked(self) -> float:
        """The consumer asks for a batch; its work on the last one ends here."""
        now = time.perf_counter()
        if self._handed_over is not None:
            self.worked += now - self._handed_over
        return now

    def delivered(self, asked: float, sites: int) -> None:
        """A batch leaves for the consumer."""
        self._handed_over = time.perf_counter()
        self.waited += self._handed_over - asked
        self.batches += 1
        self.sites += sites

    def paused(self) -> None:
        """The epoch is over: what the consumer does until the next one does not count."""
        self._handed_over = None

    @property
    def waiting_share(self) -> float:
        """Share of the consumer's time that it waited for data, 0 to 1; 0 before the first batch."""
        total = self.waited + self.worked
        return self.waited / total if total else 0.0

    def sentence(self) -> str:
        """The verdict in words."""
        if not self.batches:
            return "No batch was delivered yet."
        share = self.waiting_share
        rate = self.sites / (self.waited + self.worked) if self.waited + self.worked else 0.0
        ran = f"{self.sites} sites in {self.waited + self.worked:.1f} s, {rate:.0f} sites/s"
        if share < 0.05:
            return f"Not IO-bound: the model waited {share:.0%} of the time ({ran})."
        spent = {name: sum(self.stages.get(stage, 0.0) for stage in stages) for name, stages in _WORK.items()}
        return f"IO-bound: the model waited {share:.0%} of the time; {max(spent, key=spent.get)} is the limit ({ran})."
