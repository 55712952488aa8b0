"""Compiled kernels for stacks of microscopy channels. They take and return arrays, and know nothing of rxrx_fast.

=================  =====================================================================================
``simd``           SIMD vectors of 128 bytes for Numba
``raw_memory``     loads and stores at plain addresses for Numba
``clock``          the system's clock for compiled code
``histogram/``     histograms of 8-bit and 16-bit pixels, and the statistics that follow from them
``orient/``        one pass that normalises, flips and rotates by 90 degrees
``deflate/``       zlib streams: two inflated at once, and libdeflate
``png/``           PNG files: container checks, decoding, row filters
``augment/``       one pass that resamples and augments
``cuda/``          the same for a GPU: launchers, and kernels that only a GPU has
=================  =====================================================================================

A module imports only from those above it. The arithmetic of a pixel is one plain Python function. :func:`numba.njit`
makes the CPU version of it, and :mod:`numba.cuda` compiles the same function for the GPU, so both agree by
construction.
"""
