"""What the CUDA launchers share: how device functions are made, and arrays of any library as Numba's own."""

from __future__ import annotations

from numba import cuda

__all__ = ["inline", "on_device"]


def inline(function):
    """Make a device function of ``function`` that is compiled into its callers."""
    return cuda.jit(device=True, inline="always")(function)


def on_device(array):
    """View an array of torch, CuPy or anyone with ``__cuda_array_interface__`` as Numba's, without a copy or a wait.

    Numba's launcher would take others' arrays as they are, in ways that differ by release: through DLPack, which has
    torch order two streams at every launch, or refusing version 2 of the interface, which is torch's. And the ``dtype``
    of Numba's arrays is NumPy's, by which launchers tell the kinds of output. What has no such interface, as NumPy's
    arrays on the simulator, is returned as it is.
    """
    if getattr(array, "__cuda_ndarray__", False) or not hasattr(array, "__cuda_array_interface__"):
        return array
    return cuda.as_cuda_array(array, sync=False)
