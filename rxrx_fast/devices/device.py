"""Where batches are finished: on the CPU or on a GPU. Buffers, kernel launches, and the hand-over to PyTorch.

Both devices do the same work through one method, ``finish``: decoded stacks and their parameters in, one finished
tensor a view out, each output pixel written once.
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from threading import Timer

import numpy as np
import torch
from rxrx_kernels.augment import mix
from rxrx_kernels.augment.site import augment_site, plain
from rxrx_kernels.augment.tables import stack_augmentations
from rxrx_kernels.deflate import libdeflate as inflate
from rxrx_kernels.histogram import uint8 as moments
from rxrx_kernels.histogram.uint16 import BINS16, Histogram, histogram16
from rxrx_kernels.orient.site import orient_site
from rxrx_kernels.png import files as png

from rxrx_fast.augment.views import RAW
from rxrx_fast.decode.pipeline import Decoded
from rxrx_fast.errors import UsageError
from rxrx_fast.runtime import topology
from rxrx_fast.runtime.buffers import Buffers
from rxrx_fast.runtime.gpu_memory import explained
from rxrx_fast.runtime.meter import Meter

__all__ = ["DTYPES", "CpuDevice", "CudaDevice", "as_tensor", "count_site", "finish_site", "resolve", "stacked"]

#: Output types, of NumPy and of torch: raw pixels or normalised ones. NumPy has no bfloat16 and holds its bits.
DTYPES = {
    "uint8": (np.uint8, torch.uint8),
    "uint16": (np.uint16, torch.uint16),
    "float16": (np.float16, torch.float16),
    "bfloat16": (np.uint16, torch.bfloat16),
    "float32": (np.float32, torch.float32),
}


def as_tensor(array: np.ndarray, dtype: str) -> torch.Tensor:
    """A tensor of one of :data:`DTYPES` on an array's memory."""
    if dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def finish_site(stack, out, plan, b: int) -> None:
    """Make sample ``b`` of its decoded stack on the CPU; ``plan`` is :class:`rxrx_fast.augment.views.KernelArguments`."""
    if plan.codes[b] < 0:
        augment_site(stack, out, plan.augmentations[b], plan.raw)
    else:
        orient_site(stack, out, int(plan.codes[b]), plan.center[b], plan.scale[b])


def count_site(stack: np.ndarray):
    """The histogram of a decoded stack: (C, 256) int64, or a Histogram of 16-bit pixels."""
    return histogram16(stack) if stack.dtype == np.uint16 else moments.histogram(stack)


def stacked(counts: list):
    """The sites' histograms as one, (B, C, ...)."""
    return Histogram.stack(counts) if isinstance(counts[0], Histogram) else np.stack(counts)


def mix_pair(a: np.ndarray, b: np.ndarray, how) -> None:
    """Mix two finished samples (C, H, W) in place, as :class:`rxrx_fast.augment.mixing.Mixed` says, on the CPU."""
    if how.share == 1:
        return
    if how.cut:
        mix.exchange(a, b, mix.rectangle(how.share, how.place, a.shape[1:]))
    elif a.dtype == np.float32:
        mix.blend(a, b, how.share)
    else:
        kind = "bfloat16" if a.dtype == np.uint16 else "float16"
        p, q = as_tensor(a, kind), as_tensor(b, kind)
        first = (how.share * p.float() + (1 - how.share) * q.float()).to(p.dtype)
        q.copy_(how.share * q.float() + (1 - how.share) * p.float())
        p.copy_(first)


# Longer than loading compiled kernels takes, and shorter than compiling them.
_SILENCE_S = 3.0


class CpuDevice:
    """Finishes batches in a thread pool, one task a site; compiled kernels release the GIL.

    Parameters
    ----------
    pool : ThreadPoolExecutor
    buffers : Buffers
        Memory of the outputs.
    meter : Meter
    channels_last : bool
        Deliver (B, C, H, W) tensors in torch's channels-last memory format.
    """

    id = None
    stream_pointer = None

    def __init__(self, pool: ThreadPoolExecutor, buffers: Buffers, meter: Meter, channels_last: bool = False):
        self._pool, self._buffers, self._meter = pool, buffers, meter
        self._channels_last = channels_last

    @staticmethod
    def warm_up(dtype: str, channels_last: bool, augmented: bool = True, pixels=np.uint8) -> None:
        """Compile the kernels, or load them from the cache, so that the first batch does not wait for it.

        That takes up to a minute once after an installation, which is said, and some tenths of a second in every
        process. Without ``augmented``, the kernel of the augmentations is left out. ``pixels`` is the dtype of the
        decoded stacks.
        """
        logger = logging.getLogger("rxrx_fast")
        told = Timer(_SILENCE_S, logger.warning, ["compiling the kernels for this machine: up to a minute, once"])
        told.daemon = True
        told.start()
        try:
            stack, row = np.zeros((2, 16, 16), pixels), np.ones(2, np.float32)
            out = Buffers(1).take((16, 16, 2), DTYPES[dtype][0])
            out = out.transpose(2, 0, 1) if channels_last else out.reshape(2, 16, 16)
            if augmented or stack.dtype == np.uint16:
                augment_site(stack, out, plain(2, row, row), dtype in RAW)
            if stack.dtype != np.uint16 and out.dtype != np.uint16:
                orient_site(stack, out, 0, row, row)
            count_site(stack)
            if inflate.available():
                png.decode_files([b"", b""], stack)
        finally:
            told.cancel()

    def finish(self, decoded: Decoded, views, dtype: str, mixed=()):
        """Make the output tensors of a batch.

        Parameters
        ----------
        decoded : Decoded
            Its stack is (B, C, H, W) uint8 or uint16.
        views : list of rxrx_fast.augment.views.View
        dtype : str
            Of :data:`DTYPES`.
        mixed : sequence of rxrx_fast.augment.mixing.Mixed
            How the samples 2 i and 2 i + 1 are mixed.

        Returns
        -------
        tensors : tuple of (B, C, H, W) torch.Tensor
        ready : object
            To be given to :meth:`hand_over` with the tensors.
        """
        kind, _ = DTYPES[dtype]
        stack, timed = decoded.stack, self._meter.timed
        batch, channels = stack.shape[:2]
        counts = None
        if dtype not in RAW and any(view.per_site for view in views):
            counts = stacked(list(self._pool.map(partial(timed, "finish", count_site), stack)))
        outputs, finished, tasks = [], [], []
        for view in views:
            plan = view.kernel_arguments(counts, dtype)
            height, width = view.out_shape
            if self._channels_last:
                array = self._buffers.take((batch, height, width, channels), kind)
                planes, tensor = array.transpose(0, 3, 1, 2), as_tensor(array, dtype).permute(0, 3, 1, 2)
            else:
                planes = array = self._buffers.take((batch, channels, height, width), kind)
                tensor = as_tensor(array, dtype)
            outputs.append(tensor)
            finished.append(planes)
            for b in range(batch):
                tasks.append(self._pool.submit(timed, "finish", finish_site, stack[b], planes[b], plan, b))
            del planes, array, tensor, plan
        for task in tasks:
            task.result()
        # A task that is over keeps its arguments for as long as it is listed.
        del tasks, task
        if mixed:
            tasks = [
                self._pool.submit(timed, "finish", mix_pair, planes[2 * i], planes[2 * i + 1], how)
                for planes in finished
                for i, how in enumerate(mixed)
            ]
            for task in tasks:
                task.result()
            del tasks, task
        return tuple(outputs), None

    def hand_over(self, tensors, ready) -> None:
        """Nothing to wait for: CPU tensors are complete when they leave ``finish``."""

    def close(self) -> None:
        """Nothing is in flight."""


def _mix_on_gpu(a: torch.Tensor, b: torch.Tensor, how) -> None:
    """As :func:`mix_pair`, for two samples on a GPU; what is queued keeps the order."""
    if how.share == 1:
        return
    if how.cut:
        y0, y1, x0, x1 = mix.rectangle(how.share, how.place, tuple(a.shape[1:]))
        first, second = a[:, y0:y1, x0:x1], b[:, y0:y1, x0:x1]
        kept = first.clone()
        first.copy_(second)
        second.copy_(kept)
    else:
        share, rest = (float(np.float32(part)) for part in (how.share, 1 - how.share))
        p, q = a.float(), b.float()
        # Products and sums by themselves, as the CPU rounds them. Of float32, p and q are a and b themselves.
        first = (p * share) + (q * rest)
        b.copy_((q * share) + (p * rest))
        a.copy_(first)


# Batches whose kernels may be queued and not done; more would only hold memory.
_IN_FLIGHT = 3


class CudaDevice:
    """Finishes batches on a GPU, on a stream of its own, from DALI's output without a copy.

    A consumer's stream waits for an event of this stream, so it never sees a half-written batch, and torch's
    allocator is told of the consumer's stream, so that memory is not used again before the consumer is done.
    """

    def __init__(self, index: int, channels_last: bool = False):
        from numba import cuda
        from rxrx_kernels.cuda import augment as cuda_augment
        from rxrx_kernels.cuda import histogram16 as cuda_moments16
        from rxrx_kernels.cuda import orient as kernels

        # A small batch has few tiles: so it is, and no news to who asked for it.
        warnings.filterwarnings("ignore", message="Grid size .* under-utilization")
        self.id = index
        self._cuda, self._kernels, self._augmenting, self._counting16 = cuda, kernels, cuda_augment, cuda_moments16
        self._channels_last = channels_last
        self._device = torch.device("cuda", index)
        self._stream = torch.cuda.Stream(self._device)
        self.stream_pointer = self._stream.cuda_stream
        self._busy: deque = deque()
        # What a blur writes in between; all work is on one stream, so that one memory serves one batch after the other.
        self._scratch: torch.Tensor | None = None

    def finish(self, decoded: Decoded, views, dtype: str, mixed=()):
        """As :meth:`CpuDevice.finish`, with a torch stack; returns at once, the work is queued."""
        with explained(self.id, len(decoded.positions), "finishing"):
            return self._finish(decoded, views, dtype, mixed)

    def _finish(self, decoded: Decoded, views, dtype: str, mixed):
        # Numba takes up the thread's current context, and makes GPU 0's where there is none: so it is told which one.
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream), self._cuda.gpus[self.id]:
            stream = self._cuda.external_stream(self.stream_pointer)
            stack = self._array(decoded.stack)
            counts = None
            if dtype not in RAW and any(view.per_site for view in views):
                counts = self._counted(stack, stream)
            outputs = []
            for view in views:
                out = torch.empty(
                    (*stack.shape[:2], *view.out_shape),
                    dtype=DTYPES[dtype][1],
                    device=self._device,
                    memory_format=torch.channels_last if self._channels_last else torch.contiguous_format,
                )
                self._make(stack, out, view.kernel_arguments(counts, dtype, together=True), stream, view.bits)
                for i, how in enumerate(mixed):
                    _mix_on_gpu(out[2 * i], out[2 * i + 1], how)
                outputs.append(out)
            ready = torch.cuda.Event()
            ready.record(self._stream)
        # The stack's memory is used again once it is dropped: not before the kernels that read it are done.
        self._busy.append((ready, decoded))
        while self._busy and (self._busy[0][0].query() or len(self._busy) > _IN_FLIGHT):
            event, _ = self._busy.popleft()
            event.synchronize()
        return tuple(outputs), ready

    def _counted(self, stack, stream):
        """The sites' histograms, on the host."""
        shape, whole = tuple(stack.shape[:2]), partial(torch.zeros, device=self._device)
        if stack.dtype == np.uint8:
            counts = whole((*shape, moments.BINS), dtype=torch.int32)
            self._kernels.histogram_batch(stack, counts, stream)
            return counts.cpu().numpy().astype(np.int64)
        counts = whole((*shape, BINS16), dtype=torch.int32)
        sums = whole((*shape, 2), dtype=torch.int64)
        extremes = self._sent(np.tile(np.array(self._counting16.EXTREMES, np.int32), (*shape, 1)))
        # As Numba's array, because not every torch can name 64 bits without a sign to others.
        unsigned = self._cuda.as_cuda_array(sums).view(np.uint64)
        self._counting16.histogram16_batch(stack, counts, unsigned, extremes, stream)
        found = (counts.cpu().numpy(), sums.cpu().numpy().view(np.uint64), extremes.cpu().numpy())
        return self._counting16.as_histogram(*found, int(np.prod(stack.shape[2:])))

    def _make(self, stack, out, plan, stream, bits: int) -> None:
        """Queue the kernel that writes one view."""
        out = self._array(out)
        if len(plan.codes) == 0 or plan.codes[0] >= 0:
            tables = (plan.codes.astype(np.uint8), plan.center, plan.scale)
            self._kernels.orient_batch(stack, out, *map(self._sent, tables), stream)
            return
        tables = stack_augmentations(plan.augmentations, tuple(stack.shape[1:]), tuple(out.shape[2:]), bits)
        work, scratch = tables.work(), None
        if tables.blur.shape[1] > 1:
            size = self._augmenting.blur_bytes(tuple(stack.shape), bits)
            if self._scratch is None or len(self._scratch) < size:
                self._scratch = torch.empty(size, dtype=torch.uint8, device=self._device)
            scratch = self._scratch
        block, layout = tables.packed()
        block = self._sent(block)
        parts = {}
        for name, offset, shape, kind in layout:
            size = int(np.prod(shape)) * kind.itemsize
            parts[name] = self._cuda.as_cuda_array(block[offset : offset + size]).view(kind).reshape(shape)
        on_gpu = type(tables)(**parts)
        self._augmenting.augment_batch(stack, out, on_gpu, stream, work=work, raw=plan.raw, scratch=scratch)
        # The allocator may give the block's memory away as soon as it is dropped, but only to work that is queued
        # behind the kernel on this stream.

    def _array(self, tensor: torch.Tensor):
        """A tensor as Numba's array; of bfloat16, its bits."""
        if tensor.element_size() == 2 and tensor.dtype != torch.float16:
            # By way of int16: NumPy has no bfloat16, and not every torch can name 16 bits without a sign to others.
            return self._cuda.as_cuda_array(tensor.view(torch.int16)).view(np.uint16)
        return self._cuda.as_cuda_array(tensor)

    def _sent(self, table: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(table)).to(self._device, non_blocking=True)

    def hand_over(self, tensors, ready) -> None:
        """Make the consumer's current stream wait for the batch."""
        consumer = torch.cuda.current_stream(self._device)
        consumer.wait_event(ready)
        for tensor in tensors:
            tensor.record_stream(consumer)

    def close(self) -> None:
        """Wait for what is in flight."""
        try:
            self._stream.synchronize()
        except RuntimeError:
            # A failed kernel fails every later call. The batch has said so, or nobody wants it any more; here it must
            # not keep the threads from being ended.
            pass
        self._busy.clear()


def resolve(device: str | torch.device) -> int | None:
    """The GPU's index for "cuda", "cuda:1"; None for "cpu"; for "auto", a GPU where the path is complete.

    Without a number it is torch's current one, or under torchrun that of the rank.

    Raises
    ------
    UsageError
        If a GPU is asked for and something that it needs is missing.
    """
    if str(device) == "auto":
        missing = missing_for_cuda()
        if missing and torch.cuda.is_available():
            # A GPU that stands idle for want of a package is no choice that anyone made.
            warnings.warn(f"batches are made on the CPU although there is a GPU: {'; '.join(missing)}", stacklevel=3)
        return None if missing else _own_gpu()
    try:
        device = torch.device(device)
        known = device.type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise UsageError(f"device={str(device)!r}: must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if device.type == "cpu":
        return None
    missing = missing_for_cuda()
    if missing:
        raise UsageError(f"device={str(device)!r}: {'; '.join(missing)}")
    return device.index if device.index is not None else _own_gpu()


def _own_gpu() -> int:
    return topology.device_of_rank(torch.cuda.device_count(), torch.cuda.current_device())


def missing_for_cuda() -> list[str]:
    """What keeps this process from the GPU path, a line each; empty where it is complete."""
    missing = []
    if not torch.cuda.is_available():
        build = "torch is a CPU build" if torch.version.cuda is None else "torch sees no GPU or driver"
        missing.append(f"{build} (torch {torch.__version__})")
    extras = "install rxrx-fast[cuda13] or rxrx-fast[cuda12]"
    try:
        found = getattr(import_module("numba.cuda"), "implementation", None)
        if found != "NVIDIA":
            missing.append(f"numba-cuda is not in use, but numba's own, older CUDA target; {extras}")
    except Exception as error:
        missing.append(f"numba-cuda can't be imported ({error}); {extras}")
    return missing
