"""No byte before or behind a stack is read: pages without access around it would end the process."""

import subprocess
import sys

SCRIPT = """
import ctypes, mmap, sys
import numpy as np
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.site import augment_site, plain
from rxrx_kernels.augment.blur import gaussian

PAGE, SPACE = mmap.PAGESIZE, 16 * mmap.PAGESIZE
memory = mmap.mmap(-1, SPACE + 2 * PAGE)
base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
protect = ctypes.CDLL(None, use_errno=True).mprotect
protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
for page in (base, base + PAGE + SPACE):
    assert protect(page, PAGE, 0) == 0
rng = np.random.default_rng(0)
if sys.argv[1] == "beyond":
    ctypes.string_at(base + PAGE + SPACE - 8, 16)
for turn in range(int(sys.argv[1])):
    channels, rows, columns = rng.integers(1, 4), *rng.choice([1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 90], 2)
    size = channels * rows * columns
    start = PAGE if turn % 2 else PAGE + SPACE - size
    stack = np.frombuffer(memory, np.uint8, size, start).reshape(channels, rows, columns)
    stack[:] = rng.integers(0, 256, stack.shape)
    goal = tuple(rng.choice([1, 16, 30, 64, 96], 2))
    angle = rng.uniform(0, 7) if turn % 3 else np.pi / 2 * rng.integers(0, 4)
    scale = rng.choice([1, 1, 0.7, 1.6, 3.5])
    turned = np.rint(4096 * scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])) / 4096
    shift = np.array([columns - 1, rows - 1]) / 2 - turned @ [(goal[1] - 1) / 2, (goal[0] - 1) / 2]
    a = plain(channels)._replace(
        matrix=warp.fixed(np.c_[turned, shift + rng.choice([0, 0, 0.5, -20, 300], 2)]),
        sampling=rng.integers(0, 3, 2),
        blur=gaussian(rng.choice([0, 0, 2])),
        displacement=rng.integers(-900, 900, (2, 5, 5)).astype(np.int32) if turn % 5 == 1 else plain(1).displacement,
    )
    expected, out = np.empty((channels, *goal), np.float32), np.empty((channels, *goal), np.float32)
    augment_site(stack.copy(), expected, a, vectors=False)
    augment_site(stack, out, a)
    assert (out == expected).all(), turn
    augment_site(stack, out, a, vectors=False)
    assert (out == expected).all(), turn
print("within")
"""


def run(argument):
    return subprocess.run([sys.executable, "-c", SCRIPT, argument], capture_output=True, text=True, timeout=280)


def test_no_read_beyond_a_stack():
    """Stacks of odd sizes that begin behind a page without access or end before one, through every kind of map."""
    done = run("400")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "within"


def test_a_read_beyond_would_be_seen():
    """The pages do what they are there for."""
    assert run("beyond").returncode < 0
