"""GpuDecoder without a GPU: torch's tensors stay on the CPU, the kernels run on Numba's simulator, nvCOMP is zlib.

Run by test_gpu_decode.py in a process of its own, because all of torch.cuda that is in the way is replaced.
"""

import ctypes
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from numba import config, cuda
from png_writer import container, encoded, filtered, image_header
from rxrx_kernels.cuda import deflate as cuda_inflate
from rxrx_kernels.cuda import nvcomp
from rxrx_kernels.cuda import png as cuda_png
from rxrx_kernels.png import status as png_status

from rxrx_fast.decode import cuda as gpu_decode
from rxrx_fast.runtime.buffers import Buffers


class Stream:
    """One that is always through with everything."""

    cuda_stream = 1

    def __init__(self, *_, **__):
        pass

    def wait_stream(self, other):
        pass


class Event:
    def record(self, stream):
        pass

    def synchronize(self):
        pass


def on_the_cpu(function):
    """Torch's function without its words for a device."""

    def call(*arguments, device=None, pin_memory=None, non_blocking=None, **others):
        arguments = [a for a in arguments if not isinstance(a, (torch.device, SimpleNamespace))]
        return function(*arguments, **others)

    return call


def as_numpy(argument):
    """What the simulator takes for an array on the device: the tensor's own memory."""
    if isinstance(argument, gpu_decode._Unsigned):
        return argument._owner.numpy().view(np.uint8)[: 4 * argument.shape[0]].view(np.uint32)
    return argument.numpy() if isinstance(argument, torch.Tensor) else argument


def of_tensors(kernel):
    return lambda *arguments: kernel(*map(as_numpy, arguments))


def zlib_for_nvcomp(sources, packed, room, targets, decoded, statuses, temporary, stream):
    """Streams by their addresses, as nvCOMP reads and writes them."""
    for i, (source, size, target) in enumerate(zip(sources.tolist(), packed.tolist(), targets.tolist())):
        data = zlib.decompress(ctypes.string_at(source, size), -15)
        assert len(data) <= room[i]
        ctypes.memmove(target, data, len(data))
        decoded[i], statuses[i] = len(data), 0


def pretend():
    assert config.ENABLE_CUDASIM
    for name, thing in (("Stream", Stream), ("ExternalStream", Stream), ("Event", Event)):
        setattr(torch.cuda, name, thing)
    torch.cuda.device = torch.cuda.stream = lambda _: nullcontext()
    for name in ("empty", "arange", "full_like"):
        setattr(torch, name, on_the_cpu(getattr(torch, name)))
    to = torch.Tensor.to
    torch.Tensor.to = lambda self, kind, **_: to(self, kind) if isinstance(kind, torch.dtype) else self.clone()
    torch.Tensor.record_stream = lambda self, stream: None
    cuda.external_stream = lambda pointer: 0
    for module, name in (
        (cuda_inflate, "inflate_batch"), (cuda_png, "check_adler_batch"), (cuda_png, "unfilter_batch")
    ):  # fmt: skip
        setattr(module, name, of_tensors(getattr(module, name)))
    nvcomp.temporary_bytes, nvcomp.inflate_batch = lambda *_: 0, zlib_for_nvcomp


def main():
    pretend()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (3, 2, 9, 11)).astype(np.uint8)
    files = [[encoded(plane, rng.integers(0, 5, 9), pieces=(30,)) for plane in site] for site in pixels]
    # One file that the host refuses, and one that only the decoded bytes' sum betrays.
    files[1][0] = files[1][0][:50] + bytes([files[1][0][50] ^ 1]) + files[1][0][51:]
    stream = bytearray(zlib.compress(filtered(pixels[2, 1], 4).tobytes()))
    stream[-1] ^= 1
    files[2][1] = container(image_header(9, 11), bytes(stream))
    files = [[np.frombuffer(file, np.uint8) for file in site] for site in files]
    with ThreadPoolExecutor(2) as pool:
        for inflate in ("own", "nvcomp"):
            decoder = gpu_decode.GpuDecoder(0, 1, (9, 11), 2, Buffers(2), batch=3, inflate=inflate)
            packed = decoder.pack(files, pool)
            launch = decoder.launch(torch.from_numpy(packed.buffer), packed)
            assert launch.status.tolist() == [0, 0, png_status.CONTAINER, 0, 0, png_status.STREAM], launch.status
            assert decoder.settle(launch) == [1, 2]
            found = launch.stack.numpy()
            assert (found[0] == pixels[0]).all() and (found[1, 1] == pixels[1, 1]).all(), inflate
            assert (found[2, 0] == pixels[2, 0]).all(), inflate
            decoder.mend(launch, 1, pixels[1].copy())
            assert (decoder.keep(launch, [0, 1]).numpy() == pixels[:2]).all()
    assert [gpu_decode.GpuDecoder(0, 1, (9, 11), 6, Buffers(1), batch=b).depth for b in (1, 64, 256, 1024)] == [
        6,
        6,
        3,
        2,
    ]
    print("simulated")


if __name__ == "__main__":
    main()
