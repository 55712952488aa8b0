"""SitePipeline: batches of positions in a given order in, decoded stacks on the CPU or the GPU out.

The order, the reading and the faults are this project's, because DALI's own readers shuffle within a buffer, know
nothing of sites, and end the epoch at the first bad file. A batch passes these stages::

    positions --Readahead--> files in the page cache --Decoder.submit (pool)--> read, or read and decoded
    --faulty sites replaced--> Decoder.payload --Spine--> on the device --Decoder.finish--> (B, C, H, W)

The spine is a DALI pipeline on both devices. What DALI does depends on the decoder
(:mod:`rxrx_fast.decode.choice` picks it):

- on the CPU, for grayscale PNG and all 16-bit files, it queues and carries: the pool's threads have decoded straight
  into one (B, C, H, W) array, which DALI takes over without a copy;
- with a GPU it carries those decoded stacks to it, or, where the GPU decodes faster, the compressed files;
- other 8-bit formats it decodes itself.

Where DALI is not installed, a plain queue carries the batches on the CPU (:mod:`rxrx_fast.decode.spine`), and the host
decodes what DALI would have decoded: the same order, pixels, states and faults.

The pool works two batches ahead, the spine two more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np

from rxrx_fast.decode.base import Batch, Decoded, Decoder, Setup, Submitted, Target
from rxrx_fast.decode.choice import choose_decoder, choose_spine
from rxrx_fast.decode.dali_spine import DaliSpine
from rxrx_fast.decode.spine import PAYLOADS_AHEAD, QueueSpine, Spine, SpineError
from rxrx_fast.decode.substitutes import OnFault, Substitutes
from rxrx_fast.errors import DataError, SiteError
from rxrx_fast.runtime.buffers import Buffers
from rxrx_fast.runtime.meter import Meter
from rxrx_fast.stores.base import Store
from rxrx_fast.stores.readahead import Readahead

__all__ = ["BATCHES_IN_FLIGHT", "Decoded", "SitePipeline"]

_BATCHES_SUBMITTED = 2

#: Decoded batches in use at once: with the pool, with the spine, and with whoever finishes one.
BATCHES_IN_FLIGHT = _BATCHES_SUBMITTED + PAYLOADS_AHEAD + 1


class SitePipeline:
    """Decodes batches of sites in the order given. Iterate over it once; :meth:`close` it at any time.

    Parameters
    ----------
    store : Store
    batches : iterable of (B,) int64
        Positions in the store.
    batch_size : int
        The largest B.
    pool : Executor
        Its threads read the files, and decode if the host decodes.
    num_threads : int
        Threads of the pool, and DALI's own.
    device_id : int or None
        A GPU, or None for the CPU.
    stream : int or None
        Pointer of the CUDA stream that the stacks are made ready on.
    on_fault : callable, optional
        ``on_fault(tried, error)`` returns a position to read instead, or None to leave the site out; ``tried`` is a
        tuple of the position wanted and of the substitutes read so far. By default the error is raised.
    buffers : Buffers, optional
        Memory of the decoded stacks, which the next pipeline reuses.
    meter : Meter, optional

    Raises
    ------
    UsageError
        If DALI is missing and needed.
    SiteError, DataError
        If no site tells the image size.
    """

    def __init__(
        self,
        store: Store,
        batches: Iterable[np.ndarray],
        *,
        batch_size: int,
        pool: Executor,
        num_threads: int,
        device_id: int | None = None,
        stream: int | None = None,
        on_fault: OnFault | None = None,
        buffers: Buffers | None = None,
        meter: Meter | None = None,
    ):
        self._spine_kind = choose_spine(device_id)
        buffers = buffers or Buffers(BATCHES_IN_FLIGHT)
        target = Target(device_id, stream)
        self._setup = Setup(store, batch_size, pool, num_threads, target, buffers, meter or Meter())
        # Probe size and dtype before several threads need them.
        _ = store.image_size, store.dtype
        self._substitutes = Substitutes(on_fault)
        self._readahead = Readahead(store, batches, batch_size)
        self._source = self._read(iter(self._readahead))
        self._in_flight: deque[Batch] = deque()
        self._recovered: deque[Batch] = deque()
        self._decoder: Decoder | None = None
        self._spine: Spine | None = None

    @property
    def waits_for(self) -> int | None:
        """Position of the site that is waited for now; None if the pipeline doesn't wait for a file."""
        return self._substitutes.waits_for

    def __iter__(self) -> Iterator[Decoded]:
        # Not in the constructor: the choice may measure, which is for the thread that iterates.
        decoder = self._decoder = choose_decoder(self._setup, self._spine_kind)
        spine = self._start_spine(decoder)
        settle = self._substitutes.settle
        while True:
            try:
                with decoder.awaited():
                    carried = spine.run()
            except StopIteration:
                break
            except SpineError as error:
                # DALI neither says which file stopped it nor goes on afterwards.
                self._recover(decoder, error)
                spine = self._start_spine(decoder)
                continue
            yield from decoder.finish(self._in_flight.popleft(), carried, settle)
        yield from decoder.flush(settle)

    def _start_spine(self, decoder: Decoder) -> Spine:
        feed = self._feed(decoder)
        self._spine = QueueSpine(feed) if self._spine_kind == "queue" else DaliSpine(decoder, self._setup, feed)
        return self._spine

    def _feed(self, decoder: Decoder) -> Iterator[Any]:
        """Payloads for the spine: first of batches that were recovered."""
        while True:
            try:
                batch = self._recovered.popleft() if self._recovered else next(self._source)
            except StopIteration:
                return
            self._in_flight.append(batch)
            yield decoder.payload(batch)

    def _read(self, batches: Iterator[np.ndarray]) -> Generator[Batch, None, None]:
        """Batches whose sites were read, with substitutes for faulty ones."""
        decoder = self._decoder
        assert decoder is not None
        waiting: deque[tuple[list[int], Submitted]] = deque()

        def submit() -> None:
            if (batch := next(batches, None)) is not None:
                positions = [int(p) for p in batch]
                waiting.append((positions, decoder.submit(positions)))

        for _ in range(_BATCHES_SUBMITTED):
            submit()
        while waiting:
            positions, submitted = waiting.popleft()
            content = submitted.content
            tried = [
                self._substitutes.settle((p,), task.result, partial(_reread, decoder, content, i))
                for i, (p, task) in enumerate(zip(positions, submitted.outcomes))
            ]
            submit()
            kept = [i for i, one in enumerate(tried) if one is not None]
            if kept:
                yield Batch([one for one in tried if one is not None], decoder.gather(content, kept))

    def _recover(self, decoder: Decoder, error: SpineError) -> None:
        """Find the files that stopped the spine, and feed the batches in flight again without them.

        Raises
        ------
        DataError
            If no file is at fault.
        """
        found, recovered = False, []
        for batch in self._in_flight:
            faults = decoder.diagnose(batch)
            found = found or any(fault is not None for fault in faults)
            tried = [
                self._substitutes.settle(one, partial(_known, fault), partial(_reread, decoder, batch.content, i))
                for i, (one, fault) in enumerate(zip(batch.tried, faults))
            ]
            kept = [i for i, one in enumerate(tried) if one is not None]
            if kept:
                recovered.append(([one for one in tried if one is not None], batch.content, kept))
        self._in_flight.clear()
        if not found:
            raise DataError(f"DALI stopped and no file of the batch is at fault: {error}") from error.__cause__
        self._recovered.extend(Batch(tried, decoder.gather(content, kept)) for tried, content, kept in recovered)

    def close(self) -> None:
        """Drop what is in flight. Threads that are reading finish their file."""
        self._spine = None
        self._in_flight.clear()
        self._recovered.clear()
        self._source.close()
        self._readahead.close()


def _reread(decoder: Decoder, content: Any, sample: int, position: int) -> SiteError | None:
    return decoder.reread([position], content, [sample])[0]


def _known(fault: SiteError | None) -> SiteError | None:
    return fault
