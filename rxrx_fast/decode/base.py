"""The interface of decoders, and what passes between a decoder, the spine and the pipeline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from rxrx_fast.errors import SiteError
from rxrx_fast.runtime.buffers import Buffers
from rxrx_fast.runtime.meter import Meter
from rxrx_fast.stores.base import Store

__all__ = ["Batch", "Carried", "Decoded", "Decoder", "Setup", "Submitted", "Target"]

#: What a decoder keeps of a batch on the host, such as its pixels or its encoded files.
Content = TypeVar("Content")


class Target(NamedTuple):
    """Where stacks go: ``device_id`` is a GPU or None for the CPU; ``stream`` the pointer of its CUDA stream."""

    device_id: int | None = None
    stream: int | None = None

    def on_stream(self) -> AbstractContextManager[Any]:
        """Queue torch's work on the stream; on the CPU, do nothing."""
        if self.device_id is None:
            return nullcontext()
        stream: Any = torch.cuda.ExternalStream(self.stream, device=self.device_id)
        return torch.cuda.stream(stream)


class Setup(NamedTuple):
    """What every decoder is made of. ``batch_size`` is the largest B, ``num_threads`` those that decode."""

    store: Store
    batch_size: int
    pool: Executor
    num_threads: int
    target: Target
    buffers: Buffers
    meter: Meter


class Decoded(NamedTuple):
    """One batch: ``positions`` (B,) int64 in the store; ``stack`` (B, C, H, W) of the store's dtype.

    ``stack`` is an ndarray, or on a GPU a torch.Tensor. Keep ``owner``, whose memory it is, as long as it is in use.
    """

    positions: np.ndarray
    stack: Any
    owner: object


@dataclass(frozen=True)
class Submitted(Generic[Content]):
    """A batch that threads read: ``outcomes`` has a future for each sample, of its fault or None."""

    content: Content
    outcomes: list[Future[SiteError | None]]


@dataclass(frozen=True)
class Batch(Generic[Content]):
    """A batch that was read; ``tried`` has for each sample the position wanted and then its substitutes."""

    tried: list[tuple[int, ...]]
    content: Content

    @property
    def positions(self) -> list[int]:
        """Positions of the sites that the batch holds."""
        return [tried[-1] for tried in self.tried]


class Carried(NamedTuple):
    """What the spine gives back: ``array`` is an ndarray, or on a GPU a torch.Tensor; ``owner`` has its memory."""

    array: Any
    owner: object


#: ``settle(tried, outcome, reread)`` as :meth:`rxrx_fast.decode.substitutes.Substitutes.settle`.
Settle = Callable[
    [tuple[int, ...], Callable[[], SiteError | None], Callable[[int], SiteError | None]], tuple[int, ...] | None
]


class Decoder(ABC, Generic[Content]):
    """Turns batches of positions into stacks of pixels, before, in or behind the spine.

    The pipeline calls, for each batch and in this order: :meth:`submit`, then for each sample that could not be read
    :meth:`reread`; :meth:`gather`; :meth:`payload`, which the spine carries; :meth:`finish` with what the spine gave
    back. At the end of the epoch it calls :meth:`flush`.

    Attributes
    ----------
    samples : int
        The largest number of arrays in a payload.
    ndim, dtype
        Of each array of a payload.
    carrying : str
        What the spine does with it, as in "while copying".
    """

    samples: int
    ndim: int
    dtype: np.dtype
    carrying = "copying"

    def __init__(self, setup: Setup):
        self._setup = setup
        self._store, self._pool, self._meter = setup.store, setup.pool, setup.meter

    def submit(self, positions: Sequence[int]) -> Submitted[Content]:
        """Start reading a batch, a task a site, in the pool's threads."""
        content = self._place(len(positions))
        tasks = [self._pool.submit(self._read_one, p, content, i) for i, p in enumerate(positions)]
        return Submitted(content, tasks)

    def _read_one(self, position: int, content: Content, sample: int) -> SiteError | None:
        return self.reread([position], content, [sample])[0]

    @abstractmethod
    def _place(self, count: int) -> Content:
        """Make room for a batch of so many sites."""

    @abstractmethod
    def reread(self, positions: Sequence[int], content: Content, samples: Sequence[int]) -> list[SiteError | None]:
        """Read sites into these samples of a batch, in the calling thread; return the fault of each, or None."""

    @abstractmethod
    def gather(self, content: Content, kept: list[int]) -> Content:
        """Keep only these samples, ready for the spine."""

    @abstractmethod
    def payload(self, batch: Batch[Content]) -> Any:
        """Give the batch's arrays, at most :attr:`samples`, that the spine carries."""

    def operator(self, dali: Any, source: Any) -> Any:
        """Add what DALI does with the payload to its graph. By default: carry it to the target's device.

        Parameters
        ----------
        dali : module
        source : DataNode
            The payload, on the CPU.
        """
        return source if self._setup.target.device_id is None else source.gpu()

    def awaited(self) -> AbstractContextManager[object]:
        """Enter while the spine is waited for. By default nothing is measured."""
        return nullcontext()

    @abstractmethod
    def finish(self, batch: Batch[Content], carried: Carried, settle: Settle) -> Iterator[Decoded]:
        """Turn what the spine gave back into stacks: of this batch, of earlier ones, or none yet.

        Parameters
        ----------
        batch : Batch
        carried : Carried
        settle : callable
            Finds substitutes for sites that turn out faulty only now.
        """

    def flush(self, settle: Settle) -> Iterator[Decoded]:
        """Give the stacks that :meth:`finish` has not given yet."""
        return iter(())

    def diagnose(self, batch: Batch[Content]) -> list[SiteError | None]:
        """Find the sites that can have stopped the spine. By default none: it only carried pixels or bytes."""
        return [None] * len(batch.tried)
