"""Grayscale 8-bit PNG files decoded on a GPU: compressed bytes cross the bus, and the host touches no pixel.

A batch takes three steps::

    files of B sites --pack (host, pool)--> one page-locked buffer --DALI--> the same in GPU memory
    --launch (a side stream)--> inflate, Adler-32, filters --> (B, C, H, W) uint8 and a status a channel
    --settle (host)--> the samples with a refused channel, once the GPU is done with them

Packing checks what is cheap to check on the host (chunks, CRC-32, header); the GPU checks the rest. A channel that is
refused at either end spoils nothing else: :class:`rxrx_fast.decode.cuda.CudaDecoder` has the host decode its site
again, which finds the reason, or the pixels if the file is whole and only unusual.

A stream is inflated serially, so a batch takes milliseconds however small it is, and a small one leaves most of the
card idle. So several batches are decoded at once, each on a side stream: as many as fill the card (:attr:`depth`).

**Which inflate.** ``rxrx_kernels.cuda.deflate`` by default: it is safe with any input. nvCOMP's decoder (environment
variable ``RXRX_FAST_INFLATE=nvcomp``) leaves damaged streams undefined, and a right CRC-32 does not prove a valid
stream: use it for files that were decoded once before, for instance by ``rxrx-fast stats``.
"""

from __future__ import annotations

import itertools
import os
import warnings
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import torch
from rxrx_kernels.png import status as png_status
from rxrx_kernels.png import gather as png_gather

from rxrx_fast.errors import UsageError
from rxrx_fast.runtime.buffers import Buffers

__all__ = ["Launch", "Packed", "PngLauncher", "inflater", "pack"]

# Buffers grow in steps of 4 MiB, so that batches of nearly one size reuse the same memory.
_GRANULE = 1 << 22
# Deflate streams that fill a large card (see rxrx_kernels.cuda.deflate), and batches in flight at most.
_FULL, _DEEPEST = 1600, 6
# Bytes that a GPU writes to its memory at once.
_SECTOR = 32
# A whole deflate stream of no bytes: nvCOMP gets it instead of a stream that the host refused.
_NOTHING = np.array([3, 0], np.uint8)


class Packed(NamedTuple):
    """A batch on the host: the ``buffer`` (L,) uint8, and the N = B * C ``streams`` in it."""

    buffer: np.ndarray
    streams: png_gather.Gathered


class Launch(NamedTuple):
    """A batch whose decoding is queued.

    ``stack`` is (B, C, H, W) uint8 on the GPU, ``status`` (N,) int32 on the host, 0 for a whole channel. Both are valid
    once the CUDA event ``done`` has come. ``keep`` is memory that the GPU reads until then.
    """

    stack: torch.Tensor
    status: torch.Tensor
    done: torch.cuda.Event
    keep: object


def inflater() -> str:
    """Return which inflate the environment asks for, "own" or "nvcomp".

    Raises
    ------
    UsageError
        If ``RXRX_FAST_INFLATE`` is something else, or nvCOMP is missing.
    """
    from rxrx_kernels.cuda import nvcomp

    wanted = os.environ.get("RXRX_FAST_INFLATE", "own")
    if wanted not in ("own", "nvcomp"):
        raise UsageError(f"RXRX_FAST_INFLATE={wanted!r}: must be 'own' or 'nvcomp'")
    if wanted == "nvcomp" and not nvcomp.available():
        raise UsageError("RXRX_FAST_INFLATE='nvcomp', but nvCOMP 5 is not installed: install rxrx-fast[cuda13]")
    return wanted


class PngLauncher:
    """Queues the decoding of batches of PNG files of one size on one GPU.

    Parameters
    ----------
    device : int
    stream : int
        Pointer of the CUDA stream that data come on, and that stacks are for.
    image_size : (int, int)
        Height and width in pixels.
    channels : int
        Files a site.
    buffers : Buffers
        Page-locked memory for compressed batches.
    batch : int
        The largest B.
    inflate : {"own", "nvcomp"}, optional
        By default :func:`inflater`'s.

    Attributes
    ----------
    depth : int
        Batches to launch before the first of them is settled, so that the card is full.
    """

    def __init__(
        self,
        device: int,
        stream: int,
        image_size: tuple[int, int],
        channels: int,
        buffers: Buffers,
        *,
        batch: int,
        inflate: str | None = None,
    ):
        from numba import cuda
        from rxrx_kernels.cuda import deflate, png

        # Numba warns when a batch has fewer streams than the card has places; whoever chose a small batch knows.
        warnings.filterwarnings("ignore", message="Grid size .* under-utilization")

        self._cuda, self._deflate, self._png = cuda, deflate, png
        self._device = torch.device("cuda", device)
        self._stream = torch.cuda.ExternalStream(stream, device=self._device)
        self._size, self._channels, self._buffers = image_size, channels, buffers
        self._kind = inflater() if inflate is None else inflate
        self.depth = min(_DEEPEST, 1 - -_FULL // (batch * channels))
        with torch.cuda.device(self._device):
            self._sides = itertools.cycle([torch.cuda.Stream() for _ in range(self.depth)])

    def pack(self, sites: list[list[np.ndarray]], pool: Executor) -> Packed:
        """Check and gather the files of B sites, in the pool's threads."""
        return pack(sites, self._size, self._buffers, pool)

    def launch(self, data: torch.Tensor, packed: Packed) -> Launch:
        """Queue the decoding of a batch; return at once.

        Parameters
        ----------
        data : (L,) uint8 torch.Tensor
            The packed buffer in GPU memory, ready on the decoder's stream. The launch keeps it.
        packed : Packed
        """
        height, width = self._size
        streams = packed.streams
        count, room = len(streams.starts), height * (1 + width)
        side = next(self._sides)
        side.wait_stream(self._stream)
        with torch.cuda.device(self._device), torch.cuda.stream(side), self._cuda.gpus[self._device.index]:
            queue = self._cuda.external_stream(side.cuda_stream)
            table, host_table = self._upload(streams)
            starts, sizes = table[: 16 * count].view(torch.int64).view(2, count)
            adlers, refused = table[16 * count :].view(torch.int32).view(2, count)
            # Each stream starts at a multiple of what the card writes at once.
            pitch = -(-room // _SECTOR) * _SECTOR
            filtered = torch.empty((count, pitch), dtype=torch.uint8, device=self._device)
            decoded = torch.empty(count, dtype=torch.int64, device=self._device)
            stack = torch.empty((count // self._channels, self._channels, height, width), dtype=torch.uint8,
                                device=self._device)  # fmt: skip
            if self._kind == "nvcomp":
                status = self._by_nvcomp(side, data, starts, sizes, room, filtered, decoded, refused)
            else:
                status = refused
                words = _Unsigned(data, len(data) // 4)
                self._deflate.inflate_batch(words, starts, sizes, room, filtered, decoded, status, queue)
            self._png.check_adler_batch(filtered, room, _Unsigned(adlers, count), status, queue)
            self._png.unfilter_batch(filtered, stack, status, queue)
            told = torch.empty(count, dtype=torch.int32, pin_memory=True)
            told.copy_(status, non_blocking=True)
            done = torch.cuda.Event()
            done.record(side)
        # The stack is made on a side stream and read on ours: without this, torch could reuse its memory too early.
        stack.record_stream(self._stream)
        return Launch(stack, told, done, (data, packed, host_table))

    def _upload(self, streams: png_gather.Gathered) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy starts, sizes, sums and statuses to the GPU at once: four copies would take as long as a kernel."""
        parts = (streams.starts, streams.sizes, streams.adlers, streams.status.astype(np.int32))
        whole = np.concatenate([part.view(np.uint8) for part in parts])
        pinned = torch.empty(whole.size, dtype=torch.uint8, pin_memory=True)
        pinned.numpy()[:] = whole
        return pinned.to(self._device, non_blocking=True), pinned

    def _by_nvcomp(
        self,
        side: torch.cuda.Stream,
        data: torch.Tensor,
        starts: torch.Tensor,
        sizes: torch.Tensor,
        room: int,
        filtered: torch.Tensor,
        decoded: torch.Tensor,
        refused: torch.Tensor,
    ) -> torch.Tensor:
        from rxrx_kernels.cuda import nvcomp

        count = len(starts)
        good = refused == png_status.OK
        nothing = len(data) - png_gather.ALIGNMENT
        sources = torch.where(good, starts, nothing) + data.data_ptr()
        packed = torch.where(good, sizes, len(_NOTHING))
        rooms = torch.full_like(starts, room)
        targets = torch.arange(count, device=self._device) * filtered.shape[1] + filtered.data_ptr()
        size = nvcomp.temporary_bytes(count, room, count * room)
        temporary = torch.empty(size, dtype=torch.uint8, device=self._device) if size else None
        status = torch.empty(count, dtype=torch.int32, device=self._device)
        nvcomp.inflate_batch(sources, packed, rooms, targets, decoded, status, temporary, side.cuda_stream)
        whole = (status == 0) & (decoded == room)
        return torch.where(good & ~whole, png_status.STREAM, refused).to(torch.int32)

    def settle(self, launch: Launch) -> list[int]:
        """Wait for a batch; return the samples, 0 to B - 1, of which a channel was refused.

        The other samples of the stack are then whole, and work on our stream may read them.
        """
        launch.done.synchronize()
        status = launch.status.numpy().reshape(-1, self._channels)
        return np.flatnonzero(status.any(axis=1)).tolist()

    def keep(self, launch: Launch, samples: list[int]) -> torch.Tensor:
        """Return the stack of these samples alone."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            return launch.stack[samples]

    def replace(self, launch: Launch, sample: int, pixels: np.ndarray) -> None:
        """Put a site that the host decoded, (C, H, W) uint8, into the stack."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            # The memory is pageable, so torch has copied it when this returns.
            launch.stack[sample].copy_(torch.from_numpy(pixels))


def pack(sites: list[list[np.ndarray]], image_size: tuple[int, int], buffers: Buffers, pool: Executor) -> Packed:
    """Check the files of B sites and gather their streams in one buffer, a task of the pool a site.

    Parameters
    ----------
    sites : list of B lists of C arrays
        Encoded files, (size,) uint8 each.
    image_size : (int, int)
        What each must hold, in pixels.
    buffers : Buffers
    pool : Executor
    """
    rooms = [png_gather.room(files) for files in sites]
    ends = np.cumsum(rooms).tolist()
    # The stream of no bytes goes behind the others.
    size = -(-(ends[-1] + png_gather.ALIGNMENT) // _GRANULE) * _GRANULE
    buffer = buffers.take((size,), np.uint8)
    buffer[-png_gather.ALIGNMENT :][: len(_NOTHING)] = _NOTHING
    tasks = [
        pool.submit(png_gather.gather, files, buffer[end - room : end], *image_size)
        for files, room, end in zip(sites, rooms, ends)
    ]
    found = [task.result() for task in tasks]
    starts = [one.starts + end - room for one, room, end in zip(found, rooms, ends)]
    others = (np.concatenate([one[i] for one in found]) for i in range(1, 4))
    return Packed(buffer, png_gather.Gathered(np.concatenate(starts), *others))


class _Unsigned:
    """A tensor's memory as (count,) uint32: not every torch can export that dtype."""

    def __init__(self, tensor: torch.Tensor, count: int):
        self.shape, self._owner = (count,), tensor
        self.__cuda_array_interface__ = {
            "shape": (count,), "typestr": "<u4", "data": (tensor.data_ptr(), False), "version": 2,
        }  # fmt: skip
