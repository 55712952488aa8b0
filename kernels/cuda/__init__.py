"""The kernels for a GPU: launchers of the CPU's pixel functions, and kernels that only a GPU has.

===============  ========================================================================================
``arrays``       device functions, and arrays of any library as Numba's
``orient``       one pass that normalises, flips and rotates by 90 degrees; 8-bit histograms
``histogram16``  histograms of 16-bit pixels
``deflate``      raw deflate streams, one warp a stream; safe with any input
``nvcomp``       the same by NVIDIA's nvCOMP, for files of a trusted writer
``png``          row filters and Adler-32 of many channels
``pixel``        the device functions of augmentation: everything that makes one pixel
``augment``      the launcher of augmentation
===============  ========================================================================================

Launchers queue their work on a CUDA stream and return at once.
"""
