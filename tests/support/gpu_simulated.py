"""PngLauncher without a GPU: torch's tensors stay on the CPU, the kernels run on Numba's simulator, nvCOMP is zlib.

Run by tests/decode/test_cuda_decoder.py in a process of its own, because it replaces parts of torch.cuda.
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
from rxrx_kernels.cuda import deflate, nvcomp, png
from rxrx_kernels.png import status as png_status

from rxrx_fast.decode import cuda_png
from rxrx_fast.runtime.buffers import Buffers


class Stream:
    """A CUDA stream on which all work is done at once."""

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
    """Wrap a function of torch's: drop its arguments about devices."""

    def call(*arguments, device=None, pin_memory=None, non_blocking=None, **others):
        arguments = [a for a in arguments if not isinstance(a, (torch.device, SimpleNamespace))]
        return function(*arguments, **others)

    return call


def as_numpy(argument):
    """Give the tensor's memory as the array that the simulator takes for one on the device."""
    if isinstance(argument, cuda_png._Unsigned):
        return argument._owner.numpy().view(np.uint8)[: 4 * argument.shape[0]].view(np.uint32)
    return argument.numpy() if isinstance(argument, torch.Tensor) else argument


def of_tensors(kernel):
    return lambda *arguments: kernel(*map(as_numpy, arguments))


def zlib_for_nvcomp(sources, packed, room, targets, decoded, statuses, temporary, stream):
    """Inflate streams given by their addresses, as nvCOMP does."""
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
        (deflate, "inflate_batch"), (png, "check_adler_batch"), (png, "unfilter_batch")
    ):  # fmt: skip
        setattr(module, name, of_tensors(getattr(module, name)))
    nvcomp.temporary_bytes, nvcomp.inflate_batch = lambda *_: 0, zlib_for_nvcomp


def main():
    pretend()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (3, 2, 9, 11)).astype(np.uint8)
    files = [[encoded(plane, rng.integers(0, 5, 9), pieces=(30,)) for plane in site] for site in pixels]
    # The host refuses one file; the other fails only the sum of its decoded bytes.
    files[1][0] = files[1][0][:50] + bytes([files[1][0][50] ^ 1]) + files[1][0][51:]
    stream = bytearray(zlib.compress(filtered(pixels[2, 1], 4).tobytes()))
    stream[-1] ^= 1
    files[2][1] = container(image_header(9, 11), bytes(stream))
    files = [[np.frombuffer(file, np.uint8) for file in site] for site in files]
    with ThreadPoolExecutor(2) as pool:
        for inflate in ("own", "nvcomp"):
            launcher = cuda_png.PngLauncher(0, 1, (9, 11), 2, Buffers(2), batch=3, inflate=inflate)
            packed = launcher.pack(files, pool)
            launch = launcher.launch(torch.from_numpy(packed.buffer), packed)
            assert launch.status.tolist() == [0, 0, png_status.CONTAINER, 0, 0, png_status.STREAM], launch.status
            assert launcher.settle(launch) == [1, 2]
            found = launch.stack.numpy()
            assert (found[0] == pixels[0]).all(), inflate
            assert (found[1, 1] == pixels[1, 1]).all(), inflate
            assert (found[2, 0] == pixels[2, 0]).all(), inflate
            launcher.replace(launch, 1, pixels[1].copy())
            assert (launcher.keep(launch, [0, 1]).numpy() == pixels[:2]).all()
    assert [cuda_png.PngLauncher(0, 1, (9, 11), 6, Buffers(1), batch=b).depth for b in (1, 64, 256, 1024)] == [
        6,
        6,
        3,
        2,
    ]
    print("simulated")


if __name__ == "__main__":
    main()
