"""The background thread's work: order -> pipeline -> device -> queue."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator

import numpy as np
import torch

from rxrx_fast.decode.pipeline import SitePipeline
from rxrx_fast.deliver.faults import stand_in
from rxrx_fast.errors import DataError, SiteError
from rxrx_fast.order.epoch import GivenOrder, rank_part, repeated
from rxrx_fast.runtime.topology import bind

__all__ = ["LOOK_S", "Producer"]

#: How often a waiting thread looks whether the other side is still there.
LOOK_S = 0.1


class Producer:
    """Makes the batches of one rank from ``first_step`` to the end of an epoch, and puts them into a queue.

    Items are ``(tensors, ready, labels, meta)``; then None at the end of the epoch, or the error that ended it.

    Parameters
    ----------
    loader : DataLoader
        Read here and not kept: the thread must not keep it alive.
    order : EpochOrder, GivenOrder, ...
    epoch, first_step : int
    device : CpuDevice or CudaDevice
    pool : Pool
    output : queue.Queue
    stop : threading.Event
        Set by the consumer that leaves.
    """

    def __init__(self, loader, order, epoch: int, first_step: int, device, pool, output: queue.Queue, stop):
        self._dataset, self._order, self._epoch, self._first_step = loader.dataset, order, epoch, first_step
        self._given = isinstance(order, GivenOrder)
        self._rank, self._world_size, self._seed = loader.rank, loader.world_size, loader.seed
        self._threads, self._meter, self._stacks = loader.num_threads, loader._meter, loader._stacks
        self._cores = loader._cores
        self._faults = loader._faults
        self._batch_size = max((len(b) for b in order.batches), default=1) if self._given else loader.batch_size
        self._device, self._pool, self._queue, self._stop = device, pool, output, stop
        self._pipeline: SitePipeline | None = None

    def waits_for(self) -> str | None:
        """The site that the next batch waits for, in words; None where it does not wait for a file."""
        position = self._pipeline and self._pipeline.waits_for
        if position is None:
            return None
        store = self._dataset.store
        (site_id,), (paths,) = store.site_ids([position]), store.paths([position])
        return f"site {site_id} in {os.path.dirname(paths[0])}"

    def _batches(self) -> Iterator[np.ndarray]:
        for step in range(self._first_step, len(self._order)):
            if self._stop.is_set():
                return
            batch = self._order[step]
            yield batch if self._given else rank_part(batch, self._rank, self._world_size)

    def _on_fault(self, tried: tuple[int, ...], fault: SiteError) -> int:
        root = self._dataset.catalog.root
        if _is_gone(root):
            raise DataError(f"{root} is gone or empty: is its file system still mounted? ({fault})")
        self._faults.meet(fault, self._epoch)
        site = int(self._dataset.catalog.table.index[tried[0]])
        instead = stand_in(tried, self._order.pools(tried[0]), self._seed, self._epoch, site)
        if instead is None:
            raise DataError(f"none of the {len(tried) - 1} sites that could stand in can be read either: {fault}")
        return instead

    def _meta(self, positions: np.ndarray, step: int) -> dict[str, torch.Tensor]:
        meta = self._dataset.meta(positions)
        for name, code in self._order.tell(step).items():
            meta[name] = np.full(len(positions), code, np.int64)
        if self._world_size > 1 and not self._given:
            meta["repeated"] = repeated(len(self._order[step]), self._rank, self._world_size)
        return {name: torch.from_numpy(codes) for name, codes in meta.items()}

    def run(self) -> None:
        """Work until the epoch is over, the consumer leaves, or an error; never raises."""
        try:
            if self._cores is not None:
                # DALI's threads, which are started by this one, are bound with it.
                bind(self._cores)
            self._pipeline = SitePipeline(
                self._dataset.store,
                self._batches(),
                batch_size=self._batch_size,
                pool=self._pool,
                num_threads=self._threads,
                device_id=self._device.id,
                stream=self._device.stream_pointer,
                on_fault=self._on_fault,
                buffers=self._stacks,
                meter=self._meter,
            )
            for step, decoded in enumerate(self._pipeline, self._first_step):
                if self._stop.is_set():
                    return
                positions = decoded.positions
                views = self._dataset.parameters(positions, self._seed, self._epoch)
                mixed = self._dataset.mixing(positions, self._seed, self._epoch)
                tensors, ready = self._device.finish(decoded, views, self._dataset.dtype, mixed)
                labels = torch.from_numpy(self._dataset.batch_labels(positions, mixed))
                item = (tensors, ready, labels, self._meta(positions, step))
                self._meter.made(len(positions))
                # Nothing here may keep a delivered batch's memory from being used again.
                del decoded, tensors, ready, views
                self._meter.timed("deliver", self._put, item)
                del item
            self._put(None)
        except (MemoryError, torch.OutOfMemoryError) as error:
            self._put(self._out_of_memory(error))
        except BaseException as error:
            self._put(error)
        finally:
            self._device.close()
            if self._pipeline is not None:
                self._pipeline.close()
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _out_of_memory(self, error: BaseException) -> MemoryError:
        shape = (self._batch_size, len(self._dataset.channels), *self._dataset.size)
        reason = (str(error).splitlines() or [""])[0]
        told = MemoryError(
            f"out of memory while a batch of {' x '.join(map(str, shape))} {self._dataset.dtype} was made: take a "
            f"smaller batch_size or prefetch_factor ({reason or type(error).__name__})"
        )
        told.__cause__ = error
        return told

    def _put(self, item) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=LOOK_S)
                return
            except queue.Full:
                continue


def _is_gone(root) -> bool:
    """Whether nothing at all is left of a data set; the mount point of a lost file system is an empty folder."""
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is None
    except PermissionError:
        return False
    except OSError:
        return True
