"""CudaDevice without a GPU: the batches of CpuDevice, bit for bit, from the CUDA kernels on Numba's simulator.

Run by tests/decode/test_cuda_decoder.py in a process of its own, because all of torch.cuda that is in the way is replaced.
"""

import sys
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from gpu_simulated import Event, pretend
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from rxrx_kernels.cuda import augment as cuda_augment
from rxrx_kernels.cuda import histogram16 as cuda_moments16
from rxrx_kernels.cuda import orient as cuda
from rxrx_kernels.histogram.uint16 import WIDEST

from rxrx_fast.augment.mixing import mixed_pairs
from rxrx_fast.augment.policy import PRESETS, Policy
from rxrx_fast.augment.views import View
from rxrx_fast.decode.pipeline import Decoded
from rxrx_fast.devices import device as devices
from rxrx_fast.runtime.buffers import Buffers
from rxrx_fast.runtime.meter import Meter
from rxrx_fast.runtime.threads import Pool
from rxrx_fast.stats.normalize import Normalize

SIZE, SITES = 10, 2
BUSY = Policy(
    hflip=0.5, rot90=1.0, stats_jitter=0.1, rotate=20, zoom=(0.8, 1.2), crop=(0.7, 1), erase=1, erase_noise=0.5,
    gain=0.1, offset=0.1, gamma=0.2, noise=(0, 5), shot=(0, 1), elastic=2, channel_shuffle=0.5, blur=(0.5, 1.0),
    mixup=1.0,
)  # fmt: skip
#: What is made of a batch: (name, policies, normalisation, dtype, output size, bits, channels last).
CASES = [
    *((name, [policy], "plate", "float32", SIZE, 8, False) for name, policy in PRESETS.items()),
    ("turned and packed", [PRESETS["wilds"]], "site", "float16", SIZE, 8, True),
    ("busy", [BUSY], "site", "float32", 12, 8, False),
    ("three views", [BUSY, PRESETS["none"], PRESETS["deepnoise-hard"]], "plate", "bfloat16", SIZE, 8, False),
    ("raw", [Policy(hflip=0.5, shift=0.2)], "plate", "uint8", SIZE, 8, True),
    ("busy, 16 bits", [BUSY], "site", "float32", 12, 16, False),
    ("turned, 16 bits", [PRESETS["wilds"]], "plate", "float16", SIZE, 16, True),
    ("views of 16 bits", [PRESETS["deepnoise-hard"], PRESETS["none"]], "site", "bfloat16", SIZE, 16, False),
    ("raw, 16 bits", [Policy(vflip=0.5)], "plate", "uint16", SIZE, 16, False),
    ("raw and moved, 16 bits", [Policy(rotate=30, blur=(1, 1))], "plate", "uint16", SIZE, 16, False),
]


def on_device(value):
    """A tensor's memory as Numba's array; anything else as it is."""
    return FakeCUDAArray(value.numpy()) if isinstance(value, torch.Tensor) else value


def of_tensors(kernel):
    """The launcher on tensors' memory, which need not be contiguous."""
    return lambda *arguments, **named: kernel(*map(on_device, arguments), **{k: on_device(v) for k, v in named.items()})


def simulated_device(channels_last: bool):
    """A CudaDevice whose card is this machine's memory."""
    device = object.__new__(devices.CudaDevice)
    device.__init__(0, channels_last)
    device._device = torch.device("cpu")
    device._cuda = SimpleNamespace(external_stream=lambda pointer: 0, as_cuda_array=on_device, gpus={0: nullcontext()})
    return device


def views_of(policies, normalize, size, bits, rng):
    """What rx.Dataset would ask for."""
    center, scale = (rng.uniform(0.1, 90, (SITES, 2)) * (1 if bits == 8 else 200) for _ in range(2))
    center, scale = (None, None) if normalize == "site" else (center, scale)
    sites, shape = np.arange(SITES) + 5, (SIZE, SIZE)
    step = WIDEST if bits == 16 else 0
    return [
        View(policy.draw(3, 1, sites, number, 2), policy, Normalize.of(normalize), center, scale, None, None, 0, shape,
             (size, size), bits, step)
        for number, policy in enumerate(policies)
    ]  # fmt: skip


def main():
    pretend()
    # NumPy says so where unsigned numbers wrap around, which the hash means.
    warnings.simplefilter("ignore")
    Event.query = lambda self: True
    torch.cuda.current_stream = lambda *_: SimpleNamespace(wait_event=lambda event: None)
    for module, name in (
        (cuda, "orient_batch"), (cuda, "histogram_batch"), (cuda_augment, "augment_batch"),
        (cuda_moments16, "histogram16_batch"),
    ):  # fmt: skip
        setattr(module, name, of_tensors(getattr(module, name)))
    for name in ("zeros", "empty"):
        plain = getattr(torch, name)
        setattr(torch, name, lambda *a, plain=plain, device=None, **o: plain(*a, **o))
    pool = Pool(2, "rxrx_fast")
    for name, policies, normalize, dtype, size, bits, channels_last in CASES:
        rng = np.random.default_rng(0)
        stack = rng.integers(0, 1 << bits, (SITES, 2, SIZE, SIZE)).astype(f"uint{bits}")
        views = views_of(policies, normalize, size, bits, rng)
        mixes = policies[0].mixes and dtype not in devices.RAW
        mixed = mixed_pairs(policies[0], 3, 1, np.arange(SITES) + 5) if mixes else ()
        on_cpu = devices.CpuDevice(pool, Buffers(9), Meter(), channels_last)
        wanted, _ = on_cpu.finish(Decoded(np.arange(SITES), stack, None), views, dtype, mixed)
        on_gpu = simulated_device(channels_last)
        # Twice: memory that is used again holds nothing of before.
        for _ in range(2 if name == "busy" else 1):
            decoded = Decoded(np.arange(SITES), torch.from_numpy(stack), None)
            found, ready = on_gpu.finish(decoded, views, dtype, mixed)
        on_gpu.hand_over(found, ready)
        assert len(found) == len(wanted) == len(policies)
        for mine, theirs in zip(found, wanted):
            assert mine.dtype == theirs.dtype and mine.shape == theirs.shape, name
            assert mine.stride() == theirs.stride(), name
            unsigned = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[mine.element_size()]
            assert mine.contiguous().view(unsigned).equal(theirs.contiguous().view(unsigned)), name
        print(name, file=sys.stderr)
    pool.shutdown()
    print("simulated")


if __name__ == "__main__":
    main()
