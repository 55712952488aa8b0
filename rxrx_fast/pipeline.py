"""The DALI pipeline: encoded bytes in a given order in, decoded stacks on the CPU or the GPU out.

DALI decodes; the order, the reading and the faults are this project's, because DALI's own readers shuffle within a
buffer, know nothing of sites, and end the epoch at the first bad file. A batch of B sites with six files each enters
as 6 B encoded images and leaves as one dense tensor, so that stacking the channels costs nothing: it is a view.

Reading runs two batches ahead in the thread pool, decoding one batch ahead in DALI's own threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from rxrx_fast.errors import DataError, SiteError, UsageError
from rxrx_fast.meter import Meter

__all__ = ["Decoded", "SitePipeline", "require_dali"]

_READ_AHEAD = 2
_DECODE_AHEAD = 2


class Decoded(NamedTuple):
    """One batch: ``positions`` (B,) int64 in the store; ``stack`` (B, C, H, W) uint8, of NumPy or (on a GPU) CuPy."""

    positions: np.ndarray
    stack: object


class _Encoded(NamedTuple):
    positions: list[int]
    files: list[list[np.ndarray]]


def require_dali():
    """Import DALI, or say in one line how to install it."""
    try:
        from nvidia import dali
    except ImportError as error:
        raise UsageError(
            f"NVIDIA DALI can't be imported ({error}); install one of its builds: pip install 'rxrx-fast[cpu]' "
            "(also for machines without a GPU), 'rxrx-fast[cuda13]' or 'rxrx-fast[cuda12]'"
        ) from None
    return dali


class SitePipeline:
    """Decodes batches of sites in the order given. Iterate over it once; :meth:`close` at any time.

    Parameters
    ----------
    store : FileStore
    batches : iterable of (B,) int64
        Positions in the store.
    batch_size : int
        The largest B.
    pool : ThreadPoolExecutor
        Reads the files.
    num_threads : int
        DALI's own threads, which decode.
    device_id : int or None
        A GPU, or None for the CPU.
    stream : int or None
        Pointer of the CUDA stream that the stacks are made ready on.
    on_fault : callable, optional
        ``on_fault(position, error)`` returns a position to read instead, or None to leave the site out. By default
        the error is raised.
    """

    def __init__(
        self,
        store,
        batches: Iterable[np.ndarray],
        *,
        batch_size: int,
        pool: ThreadPoolExecutor,
        num_threads: int,
        device_id: int | None = None,
        stream: int | None = None,
        on_fault: Callable[[int, SiteError], int | None] | None = None,
        meter: Meter | None = None,
    ):
        self._dali = require_dali()
        self._store, self._pool = store, pool
        self._batch_size, self._num_threads = batch_size, num_threads
        self._device_id, self._stream = device_id, stream
        self._on_fault = on_fault or _raise_fault
        self._meter = meter or Meter()
        self._encoded = self._read(iter(batches))
        self._in_flight: deque[_Encoded] = deque()
        self._again: deque[_Encoded] = deque()
        # The size is asked for before any thread needs it.
        self._image_size = store.image_size
        self._pipe = None

    # Reading ---------------------------------------------------------------------------------------------------------

    def _read(self, batches: Iterator[np.ndarray]) -> Iterator[_Encoded]:
        waiting: deque = deque()

        def submit() -> None:
            for positions in batches:
                positions = [int(p) for p in positions]
                waiting.append((positions, [self._pool.submit(self._read_site, p) for p in positions]))
                return

        for _ in range(_READ_AHEAD):
            submit()
        while waiting:
            positions, futures = waiting.popleft()
            with self._meter.stage("read"):
                sites = [self._settle(p, future.result) for p, future in zip(positions, futures)]
            submit()
            sites = [site for site in sites if site is not None]
            if sites:
                yield _Encoded([p for p, _ in sites], [files for _, files in sites])

    def _read_site(self, position: int) -> list[np.ndarray]:
        return self._store.read(position)

    def _settle(self, position: int, read: Callable[[], list[np.ndarray]]):
        """The site's files, or those of the site that stands in for it, or None."""
        while True:
            try:
                return position, read()
            except SiteError as fault:
                position = self._on_fault(position, fault)
                if position is None:
                    return None
                read = _Call(self._store.read, position)

    # Decoding --------------------------------------------------------------------------------------------------------

    def _feed(self) -> Iterator[list[np.ndarray]]:
        while True:
            try:
                batch = self._again.popleft() if self._again else next(self._encoded)
            except StopIteration:
                return
            self._in_flight.append(batch)
            yield [data for files in batch.files for data in files]

    def _build(self):
        fn, types = self._dali.fn, self._dali.types
        pipe = self._dali.Pipeline(
            batch_size=self._batch_size * self._store.files_per_site,
            num_threads=self._num_threads,
            device_id=self._device_id,
            exec_dynamic=True,
            prefetch_queue_depth=_DECODE_AHEAD,
        )
        with pipe:
            encoded = fn.external_source(source=self._feed(), no_copy=True, dtype=types.UINT8, ndim=1)
            color = types.GRAY if self._store.channels_per_file == 1 else types.RGB
            device = "cpu" if self._device_id is None else "mixed"
            pipe.set_outputs(fn.decoders.image(encoded, device=device, output_type=color))
        pipe.build()
        return pipe

    def __iter__(self) -> Iterator[Decoded]:
        self._pipe = self._build()
        while True:
            try:
                with self._meter.stage("decode"):
                    (output,) = self._pipe.run() if self._stream is None else self._pipe.run(cuda_stream=self._stream)
            except StopIteration:
                return
            except (SiteError, UsageError):
                raise
            except RuntimeError as error:
                # DALI says neither which file it was nor goes on after it; both are put right here.
                self._recover(error)
                continue
            batch = self._in_flight.popleft()
            yield Decoded(np.array(batch.positions, np.int64), self._stacked(output, len(batch.positions)))

    def _recover(self, error: RuntimeError) -> None:
        self._pipe = None
        found = False
        for batch in self._in_flight:
            sites = []
            for position, files in zip(batch.positions, batch.files):
                try:
                    self._store.decode(position, files)
                    sites.append((position, files))
                except SiteError as fault:
                    found = True
                    instead = self._on_fault(position, fault)
                    if instead is not None:
                        sites.append(self._settle(instead, _Call(self._store.read, instead)))
            sites = [site for site in sites if site is not None]
            if sites:
                self._again.append(_Encoded([p for p, _ in sites], [files for _, files in sites]))
        self._in_flight.clear()
        if not found:
            reason = next((line for line in str(error).splitlines()[::-1] if line.strip()), "no reason given")
            raise DataError(f"DALI stopped and no file of the batch is at fault: {reason.strip()}") from error
        self._pipe = self._build()

    def _stacked(self, output, sites: int):
        height, width = self._image_size
        if not output.is_dense_tensor():
            raise DataError(f"DALI's batch is not of one size, although every file is {height} x {width}")
        tensor = output.as_tensor()
        if self._device_id is None:
            array = np.from_dlpack(tensor)
        else:
            import cupy

            array = cupy.from_dlpack(tensor)
        per_file = self._store.channels_per_file
        # (files, H, W, channels a file) -> (B, files a site, H, W, channels a file) -> (B, C, H, W), all views
        array = array.reshape(sites, -1, height, width, per_file)
        array = array[..., 0] if per_file == 1 else array[:, 0].transpose(0, 3, 1, 2)
        return self._store.select(array)

    def close(self) -> None:
        """Drop what is in flight. Threads that are reading finish the file they are at."""
        self._pipe = None
        self._in_flight.clear()
        self._again.clear()
        self._encoded.close()


class _Call:
    """A call with its argument, for the second and later attempts at a site."""

    def __init__(self, function, argument):
        self._function, self._argument = function, argument

    def __call__(self):
        return self._function(self._argument)


def _raise_fault(position: int, fault: SiteError) -> None:
    raise fault
