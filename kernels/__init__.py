"""Compiled kernels for stacks of microscopy channels: container checks, one-pass augmentation, moments.

The package knows nothing of any data set or loader: it takes and returns arrays.

==================  ====================================================================
Every kernel is one plain Python function a pixel. :func:`numba.njit` makes the CPU version of it and
:mod:`numba.cuda` compiles the same function for the GPU, so both agree by construction.
"""
