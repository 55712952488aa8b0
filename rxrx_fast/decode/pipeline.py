"""The DALI pipeline: sites in a given order in, decoded stacks on the CPU or the GPU out.

The order, the reading and the faults are this project's, because DALI's own readers shuffle within a buffer, know
nothing of sites, and end the epoch at the first bad file. What DALI decodes depends on the files:

- RxRx1's own (grayscale PNG) are decoded by ``rxrx_kernels`` in the pool's threads, straight into one (B, C, H, W)
  array that DALI takes over without a copy and carries to the device; so are all files of 16 bits, by what the store
  has for them;
- with a GPU that is faster at it (:mod:`rxrx_fast.decode.choice`), 8-bit PNG files are gathered, still compressed, into
  one page-locked buffer a batch, which DALI carries to the GPU, where they are decoded;
- all others enter DALI as encoded bytes and are decoded there. A batch of B sites with six files each leaves as one
  dense tensor, so that stacking the channels costs nothing: it is a view.

The pool works two batches ahead, DALI one more. The files of the batches after those are asked for, where they are not
in memory yet.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from rxrx_fast.decode.choice import choose
from rxrx_fast.decode.cuda import GpuDecoder
from rxrx_fast.errors import DataError, SiteError, UsageError
from rxrx_fast.runtime.buffers import Buffers
from rxrx_fast.runtime.gpu_memory import explained
from rxrx_fast.runtime.meter import Meter
from rxrx_fast.stores.readahead import Ahead

__all__ = ["BATCHES_IN_FLIGHT", "Decoded", "SitePipeline", "require_dali"]

_READ_AHEAD = 2
_DECODE_AHEAD = 2

#: Decoded batches that are in use at once: read ahead, with DALI, and with whoever finishes them.
BATCHES_IN_FLIGHT = _READ_AHEAD + _DECODE_AHEAD + 1


class Decoded(NamedTuple):
    """One batch: ``positions`` (B,) int64 in the store; ``stack`` (B, C, H, W) of the store's dtype.

    The stack is NumPy's, or on a GPU torch's.
    """

    positions: np.ndarray
    stack: object
    owner: object  # what the stack's memory belongs to: keep it as long as the stack is in use


class _Batch(NamedTuple):
    tried: list[tuple[int, ...]]  # of each sample: the position that was wanted, then those that stood in for it
    content: object  # files of each site, or pixels (B, C, H, W), or a Packed


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
        ``on_fault(tried, error)`` returns a position to read instead, or None to leave the site out; ``tried`` is a
        tuple of the position that was wanted and of those already read instead of it. By default the error is raised.
    buffers : Buffers, optional
        Memory of the decoded stacks, to be used again by the next pipeline.
    meter : Meter, optional
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
        on_fault: Callable[[tuple[int, ...], SiteError], int | None] | None = None,
        buffers: Buffers | None = None,
        meter: Meter | None = None,
    ):
        self._dali = require_dali()
        self._store, self._pool = store, pool
        self._batch_size, self._num_threads = batch_size, num_threads
        self._device_id = device_id
        self._on_stream = {} if stream is None else {"cuda_stream": stream}
        self._on_fault = on_fault or _raise_fault
        self._meter = meter or Meter()
        self._in_flight: deque[_Batch] = deque()
        self._again: deque[_Batch] = deque()
        # Size and depth are asked for before any thread needs them.
        self._image_size, self._dtype = store.image_size, store.dtype
        self._decodes = store.decodes
        self._buffers = buffers or Buffers(BATCHES_IN_FLIGHT)
        self._stream = stream
        self._gpu_decoder: GpuDecoder | None = None
        self._ahead = Ahead(store, batches, batch_size)
        self._source = self._read(iter(self._ahead))
        self._pipe = None
        #: Position that is being waited for now, None where it is not a file that the pipeline waits for.
        self.waits_for: int | None = None

    # Reading ---------------------------------------------------------------------------------------------------------

    def _read(self, batches: Iterator[np.ndarray]) -> Iterator[_Batch]:
        waiting: deque = deque()

        def submit() -> None:
            for positions in batches:
                positions = [int(p) for p in positions]
                shape = (len(positions), len(self._store.channels), *self._image_size)
                pixels = self._buffers.take(shape, self._dtype) if self._decodes else None
                slots = [None] * len(positions) if pixels is None else pixels
                futures = [self._pool.submit(self._take, *pair) for pair in zip(positions, slots)]
                waiting.append((positions, pixels, slots, futures))
                return

        for _ in range(_READ_AHEAD):
            submit()
        while waiting:
            positions, pixels, slots, futures = waiting.popleft()
            sites = [self._settle((p,), slot, future.result) for p, slot, future in zip(positions, slots, futures)]
            submit()
            kept = [i for i, site in enumerate(sites) if site is not None]
            if not kept:
                continue
            if pixels is None:
                content = [sites[i][1] for i in kept]
                if self._gpu_decoder is not None:
                    content = self._meter.timed("decode", self._gpu_decoder.pack, content, self._pool)
            else:
                content = pixels if len(kept) == len(sites) else pixels[kept]
            yield _Batch([sites[i][0] for i in kept], content)

    def _take(self, position: int, slot):
        """Read one site in a thread of the pool; ``slot`` is where its pixels go, if they are decoded here."""
        if self._gpu_decoder is not None and slot is None:
            return self._meter.timed("read", self._store.load, position)
        if slot is not None:
            return self._store.read_into(position, slot, self._meter)
        return self._meter.timed("read", self._store.read, position)

    def _settle(self, tried: tuple[int, ...], slot, result: Callable):
        """(tried, files) of the site, or of the one that stands in for it; None if it is left out."""
        while True:
            try:
                self.waits_for = tried[-1]
                files = result()
                self.waits_for = None
                return tried, files
            except SiteError as fault:
                position = self._on_fault(tried, fault)
                if position is None:
                    return None
                tried = (*tried, position)
                result = partial(self._take, position, slot)

    # Decoding --------------------------------------------------------------------------------------------------------

    def _feed(self) -> Iterator:
        while True:
            try:
                batch = self._again.popleft() if self._again else next(self._source)
            except StopIteration:
                return
            self._in_flight.append(batch)
            if self._gpu_decoder is not None:
                yield [batch.content.buffer]
            else:
                yield batch.content if self._decodes else [data for files in batch.content for data in files]

    def _build(self):
        fn, types = self._dali.fn, self._dali.types
        samples = self._batch_size * (1 if self._decodes else self._store.files_per_site)
        pipe = self._dali.Pipeline(
            batch_size=samples if self._gpu_decoder is None else 1,
            num_threads=self._num_threads,
            device_id=self._device_id,
            exec_dynamic=True,
            prefetch_queue_depth=_DECODE_AHEAD,
        )
        with pipe:
            ndim = 3 if self._decodes else 1
            dtype = types.UINT16 if self._decodes and self._dtype == np.uint16 else types.UINT8
            source = fn.external_source(source=self._feed(), no_copy=True, dtype=dtype, ndim=ndim)
            if self._decodes or self._gpu_decoder is not None:
                output = source if self._device_id is None else source.gpu()
            else:
                color = types.GRAY if self._store.channels_per_file == 1 else types.RGB
                device = "cpu" if self._device_id is None else "mixed"
                output = fn.decoders.image(source, device=device, output_type=color)
            pipe.set_outputs(output)
        pipe.build()
        return pipe

    def __iter__(self) -> Iterator[Decoded]:
        self._choose()
        self._pipe = self._build()
        # The GPU decodes several batches while the host waits for the first of them.
        launched: deque = deque()
        while True:
            try:
                output = self._run()
            except StopIteration:
                while launched:
                    yield from self._settled(*launched.popleft())
                return
            except (DataError, UsageError):
                raise
            except RuntimeError as error:
                # DALI says neither which file it was nor goes on after it; both are put right here.
                self._recover(error)
                continue
            batch = self._in_flight.popleft()
            if self._gpu_decoder is not None:
                with explained(self._device_id, self._batch_size, "decoding"):
                    launch = self._gpu_decoder.launch(self._tensor(output)[0], batch.content)
                launched.append((batch, output, launch))
                if len(launched) >= self._gpu_decoder.depth:
                    yield from self._settled(*launched.popleft())
                continue
            stack = self._stacked(output, len(batch.tried))
            yield Decoded(np.array([tried[-1] for tried in batch.tried], np.int64), stack, (output, batch.content))

    def _run(self):
        if self._decodes or self._gpu_decoder is not None:
            with explained(self._device_id, self._batch_size, "copying"):
                (output,) = self._pipe.run(**self._on_stream)
            return output
        # The threads at work are DALI's: it does not tell for how long, only how long it lets one wait.
        start = time.perf_counter()
        read = self._meter.stages["read"]
        with explained(self._device_id, self._batch_size, "decoding"):
            (output,) = self._pipe.run(**self._on_stream)
        waited = time.perf_counter() - start - (self._meter.stages["read"] - read) / self._num_threads
        self._meter.add("decode", max(waited, 0.0) * self._num_threads)
        return output

    def _recover(self, error: RuntimeError) -> None:
        self._pipe = None
        found = False
        by_dali = not self._decodes and self._gpu_decoder is None
        for batch in list(self._in_flight) if by_dali else []:
            sites = []
            for tried, files in zip(batch.tried, batch.content):
                try:
                    self._store.decode(tried[-1], files)
                    sites.append((tried, files))
                except SiteError as fault:
                    found = True
                    instead = self._on_fault(tried, fault)
                    if instead is not None:
                        sites.append(self._settle((*tried, instead), None, partial(self._take, instead, None)))
            sites = [site for site in sites if site is not None]
            if sites:
                self._again.append(_Batch([tried for tried, _ in sites], [files for _, files in sites]))
        self._in_flight.clear()
        if not found:
            reason = next((line for line in str(error).splitlines()[::-1] if line.strip()), "no reason given")
            raise DataError(f"DALI stopped and no file of the batch is at fault: {reason.strip()}") from error
        self._pipe = self._build()

    def _choose(self) -> None:
        """Decide who decodes. Here and not at the start: it may measure, which is for the thread that iterates."""
        choice = choose(
            self._store,
            batch=self._batch_size,
            pool=self._pool,
            threads=self._num_threads,
            device=self._device_id,
        )
        if choice.path == "gpu":
            channels = len(self._store.channels)
            self._gpu_decoder = GpuDecoder(
                self._device_id, self._stream, self._image_size, channels, self._buffers, batch=self._batch_size
            )
            self._decodes = False

    def _settled(self, batch: _Batch, output, launch) -> Iterator[Decoded]:
        """A batch that the GPU has decoded; sites that it refused are decoded, or replaced, by the host."""
        tried, left_out = list(batch.tried), []
        for i in self._gpu_decoder.settle(launch):
            pixels = np.empty((len(self._store.channels), *self._image_size), np.uint8)
            site = self._settle(tried[i], pixels, partial(self._take, tried[i][-1], pixels))
            if site is None:
                left_out.append(i)
            else:
                tried[i] = site[0]
                self._gpu_decoder.mend(launch, i, pixels)
        stack = launch.stack
        if left_out:
            kept = [i for i in range(len(tried)) if i not in left_out]
            tried, stack = [tried[i] for i in kept], self._gpu_decoder.keep(launch, kept)
        if tried:
            positions = np.array([one[-1] for one in tried], np.int64)
            yield Decoded(positions, stack, (output, batch.content, launch))

    def _tensor(self, output):
        """DALI's GPU output as a torch tensor, without a copy and without waiting: ready on our stream.

        Not as CuPy's array: that names a stream, and Numba would wait for it on the host at every launch.
        """
        with self._on_our_stream():
            return torch.from_dlpack(output.as_tensor())

    def _on_our_stream(self):
        if self._device_id is None:
            return nullcontext()
        return torch.cuda.stream(torch.cuda.ExternalStream(self._stream, device=self._device_id))

    def _stacked(self, output, sites: int):
        height, width = self._image_size
        if not output.is_dense_tensor():
            raise DataError(f"DALI's batch is not of one size, although every file is {height} x {width}")
        array = np.from_dlpack(output.as_tensor()) if self._device_id is None else self._tensor(output)
        if self._decodes:
            return array
        per_file = self._store.channels_per_file
        # (files, H, W, channels a file) -> (B, files a site, H, W, channels a file) -> (B, C, H, W), all views
        array = array.reshape(sites, -1, height, width, per_file)
        if per_file == 1:
            return self._store.select(array[..., 0])
        array = array[:, 0]
        with self._on_our_stream():
            # Selecting channels copies, so on a GPU it is work on a stream.
            return self._store.select(
                array.transpose(0, 3, 1, 2) if self._device_id is None else array.permute(0, 3, 1, 2)
            )

    def close(self) -> None:
        """Drop what is in flight. Threads that are reading finish the file they are at."""
        self._pipe = None
        self._in_flight.clear()
        self._again.clear()
        self._source.close()
        self._ahead.close()


def _raise_fault(tried: tuple[int, ...], fault: SiteError) -> None:
    raise fault
