"""Compiled kernels for stacks of microscopy channels: container checks, one-pass augmentation, moments.

The package knows nothing of any data set or loader: it takes and returns arrays.

================  ===========================================================================
module            what it holds
================  ===========================================================================
``png``           grayscale PNG files: container, CRC-32 checks, decoding into a batch
``png_decode``    the compiled loop over a site's files
``inflate``       libdeflate, called from compiled code
``unfilter``      PNG row filters undone along a wavefront, 128 rows at once
``lanes``         vectors of 128 bytes as a Numba type
``fused``         turn, flip, normalise and cast in one pass over the pixels
``fused_lines``   the same for contiguous planes, sixteen pixels a step
``augment``       every augmentation of 8-bit pixels in one pass
``augment16``     the same of 16-bit pixels
``moments``       256-bin histograms a channel, and the statistics that follow from them
``moments16``     histograms of 16-bit pixels that stay small, beside sums that stay exact
``cuda``          the CUDA launchers of ``fused`` and ``moments``; needs ``numba-cuda``
================  ===========================================================================

Every kernel is one plain Python function a pixel. :func:`numba.njit` makes the CPU version of it and
:mod:`numba.cuda` compiles the same function for the GPU, so both agree by construction.
"""
