"""The consumer's side of one epoch: an iterator over finished batches, and its clean end."""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from functools import partial

from rxrx_fast.deliver.producer import LOOK_S, Producer
from rxrx_fast.devices.device import CpuDevice, CudaDevice
from rxrx_fast.errors import StalledError
from rxrx_fast.runtime.threads import Pool
from rxrx_fast.runtime.topology import bind

__all__ = ["EpochIterator"]

_JOIN_S = 60.0
# A thread that was waited for in vain is not waited for a second time; it is a daemon and ends with the process.
_JOIN_STALLED_S = 1.0


# Iterators whose threads may be at work.
_open: weakref.WeakSet = weakref.WeakSet()


def _end_all() -> None:
    """End the threads while all that they use is still there."""
    for iterator in list(_open):
        iterator.close()


# Functions registered with atexit run in reverse order of registration, so those of DALI and torch, imported later,
# would take their libraries down under threads at work. The standard pools are joined before any of them, by this hook
# of the standard library's own, which is older than every Python that is supported here.
threading._register_atexit(_end_all)


class EpochIterator:
    """Batches of one epoch. Threads hold its queue and not itself, so that dropping it ends them.

    Parameters
    ----------
    loader : DataLoader
    order : EpochOrder, GivenOrder, ...
    epoch, first_step : int
    """

    def __init__(self, loader, order, epoch: int, first_step: int):
        self._loader, self._step, self._steps = loader, first_step, len(order)
        self._queue: queue.Queue = queue.Queue(maxsize=loader.prefetch_factor)
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._end: type[Exception] | None = None
        bound = None if loader._cores is None else partial(bind, loader._cores)
        pool = Pool(loader.num_threads, "rxrx_fast", bound)
        try:
            if loader._device_index is None:
                self._device = CpuDevice(pool, loader._outputs, loader._meter, loader._channels_last)
            else:
                self._device = CudaDevice(loader._device_index, loader._channels_last)
            self._producer = Producer(loader, order, epoch, first_step, self._device, pool, self._queue, self._stop)
        except BaseException:
            pool.shutdown()
            raise
        self._thread = threading.Thread(target=self._producer.run, name="rxrx_fast producer", daemon=True)
        self._join_s = [_JOIN_S]
        self._finalizer = weakref.finalize(self, _shut_down, self._stop, self._thread, self._pid, self._join_s)
        _open.add(self)
        self._thread.start()

    def __iter__(self):
        return self

    def __len__(self) -> int:
        return self._steps

    def __next__(self):
        if self._end is not None:
            raise self._end
        if os.getpid() != self._pid:
            raise RuntimeError("an iterator of rx.DataLoader can't be used in a forked process: make one there")
        meter = self._loader._meter
        asked = meter.asked(self._queue.qsize())
        try:
            item = self._get()
            if isinstance(item, BaseException):
                raise item
        except BaseException:
            self.close()
            raise
        if item is None:
            meter.paused()
            self._loader._finished(self)
            self.close()
            raise StopIteration
        tensors, ready, labels, meta = item
        self._device.hand_over(tensors, ready)
        self._step += 1
        self._loader._delivered(self, self._step)
        meter.delivered(asked, len(labels))
        return (tensors[0] if len(tensors) == 1 else tensors), labels, meta

    def _get(self):
        limit = self._loader.timeout
        end = time.monotonic() + limit
        while True:
            try:
                return self._queue.get(timeout=LOOK_S)
            except queue.Empty:
                if not self._thread.is_alive() and self._queue.empty():
                    raise RuntimeError(
                        "the loader's background thread ended without a word; please report this"
                    ) from None
                if limit and time.monotonic() > end:
                    self._join_s[0] = _JOIN_STALLED_S
                    what = self._producer.waits_for()
                    reading = f"it waits for {what}" if what else "it does not wait for a file"
                    raise StalledError(
                        f"no batch came within timeout={limit:g} s: {reading}; is a file system gone?"
                    ) from None

    def close(self) -> None:
        """End the threads now. Batches already delivered stay valid."""
        self._end = self._end or StopIteration
        self._finalizer()

    def supersede(self) -> None:
        """End the threads, and let whoever still holds this iterator know that it was not its epoch that ended."""
        if self._end is None:
            self._end = _Superseded
        self.close()


class _Superseded(RuntimeError):
    def __init__(self):
        super().__init__("another iterator of this rx.DataLoader was started: use one at a time, or two loaders")


def _shut_down(stop: threading.Event, thread: threading.Thread, pid: int, join_s: list[float]) -> None:
    stop.set()
    # Not in a forked child, where the thread does not exist; not from the producer itself, which can be the one that
    # drops the last reference.
    if os.getpid() == pid and thread is not threading.current_thread() and thread.is_alive():
        thread.join(join_s[0])
