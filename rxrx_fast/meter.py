"""Who waited for whom: clocks of the loader's stages and of its consumer."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager

__all__ = ["Meter"]


class Meter:
    """Seconds spent in each stage, and how long the consumer waited for a batch against how long it worked on one.

    The stages run in the loader's background thread. ``read`` and ``decode`` are that thread's waits for the readers
    and for DALI, ``finish`` is the fused kernel, ``deliver`` is the wait for a free place in the queue: where
    ``deliver`` is large, the model is the limit.
    """

    def __init__(self):
        self.stages: dict[str, float] = defaultdict(float)
        self.sites = self.batches = 0
        self.waited = self.worked = 0.0
        self._handed_over: float | None = None

    @contextmanager
    def stage(self, name: str):
        """Count the time of a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] += time.perf_counter() - start

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
        slowest = max(("read", "decode", "finish"), key=lambda name: self.stages.get(name, 0.0))
        stage = {"read": "reading the files", "decode": "decoding", "finish": "the fused kernel"}[slowest]
        return f"IO-bound: the model waited {share:.0%} of the time; {stage} is the limit ({ran})."
