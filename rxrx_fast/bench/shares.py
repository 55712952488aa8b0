"""Where the time of the loader's threads goes: its own clocks of its stages, against the system's of its threads.

``threads x wall`` is what the threads could have worked. The stages are timed inside them, by the loader's
:class:`~rxrx_fast.runtime.meter.Meter`. ``waiting`` is what they slept, which the system counts: for work, that is for a
consumer or a GPU that is slower. Neither clock knows of the other, so their sum is a check of both:

- below 1, the rest is Python between the stages;
- above 1, threads slept inside a stage, for a disk or the GIL, which counts twice.

Time that a thread was ready and had no core lies inside the stages or between them, and is told apart as ``no_core``.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import NamedTuple

from rxrx_fast.decode.choice import choose_spine
from rxrx_fast.decode.pipeline import BATCHES_IN_FLIGHT

__all__ = ["STAGES", "TOLERANCE", "Clocks", "between", "measure", "observed", "sentence", "thread_clock"]

#: The meter's stages in the order of the pipeline, and what they are called. A meter need not have all of them.
STAGES = {
    "read": "reading", "inflate": "inflating", "unfilter": "unfiltering", "decode": "decoding", "finish": "fusing",
}  # fmt: skip
#: How far from 1 the sum may be before the shares are not to be trusted.
TOLERANCE = 0.1
# The stage of another thread, the one that hands batches over.
_DELIVER = "deliver"
# Batches at both ends of a pass that are left out: with the last one read, the threads run out of work.
_HEAD, _TAIL = 2, BATCHES_IN_FLIGHT + 3


class Clocks(NamedTuple):
    """All clocks at one moment.

    now : float
    stages : dict of str to float
        Seconds of threads at work, by stage, of :meth:`DataLoader.report`.
    threads : dict of int to (float, float)
        Seconds that each thread ran on a core, and that it was ready and had none.
    """

    now: float
    stages: dict[str, float]
    threads: dict[int, tuple[float, float]]


def thread_clock(native_id: int | str = "self") -> tuple[float, float]:
    """Seconds that a thread has run on a core, and seconds that it was ready and waited for one; (0, 0) if it is over.

    What is left of the time since its start it slept: for the GIL, a lock, work or a disk.
    """
    path = "/proc/thread-self/schedstat" if native_id == "self" else f"/proc/self/task/{native_id}/schedstat"
    try:
        ran, ready, _ = Path(path).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return 0.0, 0.0
    return int(ran) / 1e9, int(ready) / 1e9


def _clocks(loader) -> Clocks:
    pool = [thread.native_id for thread in threading.enumerate() if thread.name.startswith("rxrx_fast_")]
    stages = loader.report()["stages_s"]
    if loader.dataset.store.decoders[0] == "dali" and choose_spine(None) == "dali":
        # DALI's threads decode then, beside these.
        stages = {name: seconds for name, seconds in stages.items() if name != "decode"}
    return Clocks(time.perf_counter(), stages, {native_id: thread_clock(native_id) for native_id in pool})


def between(before: Clocks, after: Clocks, threads: int) -> dict:
    """The shares of the time between two moments.

    Returns
    -------
    dict
        ``wall_s``, ``threads``; ``shares``, a dict by name in the order of the pipeline, with ``waiting`` at its end;
        ``explained``, their sum; ``no_core``, a part of them; all of wall x threads. ``delivering``, the share of
        the wall time that the one thread which hands batches over waited for a free place.
    """
    wall = after.now - before.now
    total = wall * threads
    spent = {name: seconds - before.stages.get(name, 0.0) for name, seconds in after.stages.items()}
    delivering = spent.pop(_DELIVER, 0.0) / wall
    order = [*(name for name in STAGES if name in spent), *(name for name in spent if name not in STAGES)]
    shares = {STAGES.get(name, name): spent[name] / total for name in order}
    changes = [
        (ran - before.threads.get(thread, (0.0, 0.0))[0], ready - before.threads.get(thread, (0.0, 0.0))[1])
        for thread, (ran, ready) in after.threads.items()
    ]
    ran, ready = (sum(seconds) for seconds in zip(*changes)) if changes else (0.0, 0.0)
    shares["waiting"] = 1 - (ran + ready) / total
    return {"wall_s": wall, "threads": threads, "shares": shares, "explained": sum(shares.values()),
            "no_core": ready / total, "delivering": delivering}  # fmt: skip


def observed(batches: int) -> int:
    """How many batches a pass needs for :func:`measure` to see so many of them."""
    return _HEAD + max(1, batches) + 1 + _TAIL


def measure(loader) -> dict | None:
    """Go through one epoch of a loader; the shares between a batch near its beginning and one near its end.

    None where the system keeps no clocks of threads (Linux does).
    """
    if thread_clock() == (0.0, 0.0):
        return None
    moments = (_HEAD, len(loader) - 1 - _TAIL)
    before, after = [_clocks(loader) for number, _ in enumerate(loader) if number in moments]
    return between(before, after, loader.num_threads)


def sentence(found: dict) -> str:
    """The shares in words, and how much of the time they explain."""
    shares = ", ".join(f"{name} {share:.0%}" for name, share in found["shares"].items())
    told = (
        f"its threads' time: {shares}; together {found['explained']:.0%} of {found['threads']} threads x "
        f"{found['wall_s']:.1f} s"
    )
    if found["explained"] > 1 + TOLERANCE:
        return f"{told}: not to be trusted, threads slept inside a stage, for a disk or the GIL, which counts twice"
    if found["explained"] < 1 - TOLERANCE:
        return f"{told}: not to be trusted, threads were busy outside of the stages"
    return told
