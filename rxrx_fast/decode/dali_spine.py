"""DaliSpine: a DALI pipeline that carries payloads, and decodes them where the decoder asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from rxrx_fast.decode.base import Carried, Decoder, Setup
from rxrx_fast.decode.spine import PAYLOADS_AHEAD, Spine, SpineError
from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.runtime.gpu_memory import explained

__all__ = ["DaliSpine", "import_dali", "require_dali"]


def import_dali() -> Any | None:
    """Import DALI; None where that fails."""
    try:
        return require_dali()
    except UsageError:
        return None


def require_dali() -> Any:
    """Import DALI.

    Raises
    ------
    UsageError
        With the command that installs it.
    """
    try:
        from nvidia import dali
    except ImportError as error:
        raise UsageError(
            f"NVIDIA DALI can't be imported ({error}); install one of its builds: pip install 'rxrx-fast[cpu]' "
            "(also for machines without a GPU), 'rxrx-fast[cuda13]' or 'rxrx-fast[cuda12]'"
        ) from None
    return dali


class DaliSpine(Spine):
    """Carries payloads through DALI.

    What DALI does depends on the decoder:

    - host decoder on the CPU (RxRx1's PNG files, and all 16-bit files): DALI queues and carries decoded stacks, without
      a copy; it decodes nothing.
    - host decoder with a GPU: DALI copies decoded stacks to the GPU, beside other work.
    - CUDA decoder: DALI copies packed, compressed files to the GPU, where our kernels decode them.
    - DALI decoder (other 8-bit formats): DALI decodes encoded files, on the CPU or on CPU and GPU together.

    Parameters
    ----------
    decoder : Decoder
    setup : Setup
    feed : iterator
        Of payloads.
    """

    def __init__(self, decoder: Decoder, setup: Setup, feed: Iterator[Any]):
        self._setup, self._carrying = setup, decoder.carrying
        device_id, stream = setup.target
        self._on_stream = {} if stream is None else {"cuda_stream": stream}
        dali = require_dali()
        pipe = dali.Pipeline(
            batch_size=decoder.samples,
            num_threads=setup.num_threads,
            device_id=device_id,
            exec_dynamic=True,
            prefetch_queue_depth=PAYLOADS_AHEAD,
        )
        with pipe:
            dtype = dali.types.UINT16 if decoder.dtype == np.uint16 else dali.types.UINT8
            source = dali.fn.external_source(source=feed, no_copy=True, dtype=dtype, ndim=decoder.ndim)
            pipe.set_outputs(decoder.operator(dali, source))
        pipe.build()
        self._pipe = pipe

    def run(self) -> Carried:
        """Give back the oldest payload; see :meth:`Spine.run`.

        Raises
        ------
        SpineError
            With the last line of DALI's message.
        UsageError
            If the GPU has no memory left.
        """
        try:
            with explained(self._setup.target.device_id, self._setup.batch_size, self._carrying):
                output = self._run()
        except RuntimeError as error:
            reason = next((line for line in str(error).splitlines()[::-1] if line.strip()), "no reason given")
            raise SpineError(reason.strip()) from error
        if not output.is_dense_tensor():
            height, width = self._setup.store.image_size
            raise DataError(f"DALI's batch is not of one size, although every file is {height} x {width}")
        if self._setup.target.device_id is None:
            return Carried(np.from_dlpack(output.as_tensor()), output)
        # As torch's tensor and not CuPy's array: that one names a stream, and Numba would wait for it on the host at
        # every launch. No copy, and no wait: it is ready on our stream.
        with self._setup.target.on_stream():
            return Carried(torch.from_dlpack(output.as_tensor()), output)

    def _run(self) -> Any:
        (output,) = self._pipe.run(**self._on_stream)
        return output
