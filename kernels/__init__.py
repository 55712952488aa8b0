"""Compiled kernels for stacks of microscopy channels: container checks, one-pass augmentation, moments.

The package knows nothing of any data set or loader: it takes and returns arrays.

==================  ===========================================================================
module              what it holds
==================  ===========================================================================
``png``             grayscale PNG files: container, CRC-32 checks, decoding into a batch
``png_decode``      the compiled loop over a site's files
``inflate_pair``    two zlib streams inflated at once; ``huffman`` makes its tables
``inflate``         libdeflate, called from compiled code
``unfilter``        PNG row filters undone along a wavefront, 128 rows at once
``lanes``           vectors of 128 bytes as a Numba type
``fused``           turn, flip, normalise and cast in one pass over the pixels
``fused_lines``     the same for contiguous planes, sixteen pixels a step
``augment``         every augmentation of a site in one pass
``augment_lines``   its compiled loop over output rows
``warp``            where pixels come from, when an image is moved, resized or bent
``warp_lines``      resampling of whole rows; ``warp_gather`` that of scattered pixels
``tone``            illumination, camera noise and tables, a pixel
``noise``           normal numbers by arithmetic
``blur``            Gaussian blur in integers
``mix``             CutMix and MixUp of two finished samples, in place
``moments``         256-bin histograms a channel, and the statistics that follow from them
``cuda``            the CUDA launchers of ``fused`` and ``moments``; needs ``numba-cuda``
``cuda_augment``    those of ``augment``; ``augment_tables`` packs what they need
``png_gather``      compressed image data, checked and gathered for a GPU
``cuda_inflate``    deflate streams on a GPU, safe with any input
``cuda_png``        Adler-32 and PNG row filters on a GPU
``nvcomp``          nvCOMP's deflate, for streams that one trusts
``clock``           the system's clock, for compiled code
``raw_memory``      loads and stores at addresses as Numba functions
==================  ===========================================================================

Every kernel is one plain Python function a pixel. :func:`numba.njit` makes the CPU version of it and
:mod:`numba.cuda` compiles the same function for the GPU, so both agree by construction.
"""
