"""Compiled kernels for stacks of microscopy channels: container checks, one-pass augmentation, moments.

The package knows nothing of any data set or loader: it takes and returns arrays.

=================  ==========================================================================
module             what it holds
=================  ==========================================================================
``png``            the PNG container: header, chunk and CRC-32 checks
``fused``          turn, flip, normalise and cast in one pass over the pixels (CPU and CUDA)
``moments``        256-bin histograms a channel, and the statistics that follow from them
=================  ==========================================================================

Every kernel is one plain Python function a pixel. :func:`numba.njit` makes the CPU version of it and
:mod:`numba.cuda` compiles the same function for the GPU, so both agree by construction. CUDA launchers are
imported from ``rxrx_kernels.cuda``, which needs ``numba-cuda``.
"""
