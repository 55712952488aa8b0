"""Mirror, normalise and cast a batch on a GPU in PyTorch or CuPy: peers of the orient kernel.

Each maker returns ``work(stack, center, scale)``, from (B, C, H, W) uint8 and (B, C, 1, 1) float32 tensors to a new
(B, C, H, W) float16 tensor, or raises ImportError where its library is not installed. Only CuPy needs a GPU.
"""

from __future__ import annotations

import torch


def eager(stack, center, scale):
    return ((stack.flip(-1).float() - center) * scale).half()


def make_eager():
    """PyTorch, eager."""
    return eager


def make_compiled():
    """PyTorch, compiled by torch.compile."""
    if torch.cuda.is_available():
        # torch.compile needs Triton on GPUs.
        import triton  # noqa: F401
    return torch.compile(eager, dynamic=False)


def make_cupy():
    """CuPy, one element-wise kernel over a mirrored view; DLPack passes tensors without a copy."""
    import cupy

    kernel = cupy.ElementwiseKernel(
        "uint8 pixel, float32 center, float32 scale", "float16 out", "out = (pixel - center) * scale", "normalise"
    )

    def work(stack, center, scale):
        pixels, center, scale = map(cupy.from_dlpack, (stack, center, scale))
        return torch.from_dlpack(kernel(pixels[..., ::-1], center, scale))

    return work


#: Row name to maker.
PEERS = {"torch, eager": make_eager, "torch.compile": make_compiled, "CuPy ElementwiseKernel": make_cupy}
