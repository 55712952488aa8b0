"""DataLoader: the thin PyTorch iterator over finished batches.

One background thread an epoch walks the order, lets :class:`SitePipeline` decode and a device finish, and puts
batches into a short queue. The loader itself does no arithmetic on pixels.
"""

from __future__ import annotations

import os
import queue
import threading
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from rxrx_fast.buffers import Buffers
from rxrx_fast.dataset import Dataset
from rxrx_fast.device import CpuDevice, CudaDevice, resolve
from rxrx_fast.errors import DataError, SiteError, UsageError
from rxrx_fast.keyed import uniform
from rxrx_fast.meter import Meter
from rxrx_fast.order import EpochOrder, GivenOrder, rank_part
from rxrx_fast.pipeline import BATCHES_IN_FLIGHT, SitePipeline

__all__ = ["DataLoader"]

# How often a waiting thread looks whether the other side is still there.
_LOOK_S = 0.1
_JOIN_S = 60.0

# Arguments of torch's DataLoader that have no meaning here and change nothing in what is delivered.
_HARMLESS = {"persistent_workers", "multiprocessing_context", "pin_memory_device", "in_order", "timeout"}
_REFUSED = {
    "collate_fn": "batches come collated; apply the function to the batch inside the loop",
    "worker_init_fn": "there are no worker processes",
}


class DataLoader:
    """Streams batches ``(images, labels, meta)`` of a :class:`Dataset`; takes the place of torch's DataLoader.

    ``images`` is a (B, C, H, W) tensor, or a tuple of them where the data set has several views; ``labels`` is (B,)
    int64; ``meta`` a dict of (B,) int64 tensors. Images are on ``device``, the rest on the CPU.

    Parameters
    ----------
    dataset : Dataset
    batch_size : int
        Per rank; the global batch is ``batch_size * world_size``.
    shuffle : bool
        A new order each epoch, a pure function of (seed, epoch).
    sampler, batch_sampler : iterable, optional
        Any torch sampler of sample numbers, or of lists of them. It shards by itself (as torch's DistributedSampler
        does): rank and world_size then do not apply.
    drop_last : bool
        Leave out a short last batch.
    seed : int
        Of the order and of the augmentation.
    group_by : {None, "plate", "experiment", "cell_type"}
        Every batch from one group. Each site still comes once an epoch; each group's last batch may be short.
    device : str or torch.device
        "auto" takes the current GPU where there is one and what it needs is installed, else the CPU; images of 16 bits
        are finished on the CPU.
    channels_last : bool
        Images in torch's channels-last memory format.
    num_threads : int, optional
        Threads that read and finish, and as many in DALI that decode. By default the cores this process may use,
        divided by the ranks on the machine. ``num_workers``, if given and positive, means the same.
    prefetch_factor : int
        Finished batches that wait for the consumer.
    rank, world_size : int, optional
        By default those of ``torch.distributed``, where it is initialised.
    on_error : {"raise", "skip"}
        With "skip", a site that can't be read is replaced by another, chosen by (seed, epoch, site), and listed in
        :meth:`report`.
    max_errors : int
        With "skip": more faults than this in an epoch are an error after all.
    pin_memory : bool
        Page-locked CPU output, where torch has a GPU.
    **others
        torch's further arguments are accepted where they change nothing in what is delivered, and refused with the
        reason where they would.

    Notes
    -----
    An iterator starts the epoch that :meth:`set_epoch` names; without it, each new iterator starts the next one. The
    threads end when the epoch does, when the iterator is dropped or closed, or with the interpreter.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 64,
        shuffle: bool | None = False,
        sampler=None,
        batch_sampler=None,
        *,
        drop_last: bool = False,
        seed: int = 0,
        group_by: str | None = None,
        device: str | torch.device = "auto",
        channels_last: bool = False,
        num_threads: int | None = None,
        num_workers: int | None = None,
        prefetch_factor: int | None = 2,
        rank: int | None = None,
        world_size: int | None = None,
        on_error: str = "raise",
        max_errors: int = 100,
        pin_memory: bool = False,
        generator: torch.Generator | None = None,
        **others,
    ):
        if not isinstance(dataset, Dataset):
            raise UsageError(
                f"rx.DataLoader streams an rx.Dataset, not a {type(dataset).__name__}: build rx.Dataset(root, ...), "
                "or keep torch.utils.data.DataLoader for this data set"
            )
        for name, value in others.items():
            if name in _REFUSED:
                if value is not None:
                    raise UsageError(f"{name} has no place in rx.DataLoader: {_REFUSED[name]}")
            elif name not in _HARMLESS:
                raise UsageError(f"rx.DataLoader has no argument {name!r}")
        shuffle = bool(shuffle)
        for name, value, least in (("batch_size", batch_size, 1), ("max_errors", max_errors, 0)):
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
                raise UsageError(f"{name}={value!r}: must be a whole number of at least {least}")
        prefetch_factor = 2 if prefetch_factor is None else prefetch_factor
        if prefetch_factor < 1:
            raise UsageError(f"prefetch_factor={prefetch_factor}: must be at least 1")
        if sampler is not None and batch_sampler is not None:
            raise UsageError("sampler and batch_sampler can't be given together")
        if (sampler is not None or batch_sampler is not None) and (shuffle or group_by is not None):
            raise UsageError("a sampler decides the order: leave shuffle and group_by out")
        if on_error not in ("raise", "skip"):
            raise UsageError(f"on_error={on_error!r}: must be 'raise' or 'skip'")
        if group_by not in (None, "plate", "experiment", "cell_type"):
            raise UsageError(f"group_by={group_by!r}: must be None, 'plate', 'experiment' or 'cell_type'")
        self.dataset, self.batch_size, self.drop_last = dataset, int(batch_size), bool(drop_last)
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.seed = int(seed) if generator is None else int(generator.initial_seed())
        self._shuffle, self._group_by = shuffle, group_by
        self._groups = None if group_by is None else dataset.catalog.group_keys(group_by)[0]
        self._device_index = resolve(device, dataset.store.dtype)
        self.device = torch.device("cpu") if self._device_index is None else torch.device("cuda", self._device_index)
        self._channels_last = bool(channels_last)
        self._prefetch, self._on_error, self._max_errors = int(prefetch_factor), on_error, int(max_errors)
        if self._device_index is None:
            CpuDevice.warm_up(dataset.dtype, self._channels_last, pixels=dataset.store.dtype)
        self.rank, self.world_size = _ranks(rank, world_size)
        self.num_threads = _threads(num_threads or num_workers or None)
        self._epoch, self._position, self._started = 0, 0, False
        # Memory outlives an epoch: the first touch of fresh pages costs more than all arithmetic. Outputs are in the
        # queue, with the producer, with the consumer, and one more that the consumer has not dropped yet.
        on_gpu = self._device_index is not None
        self._stacks = Buffers(BATCHES_IN_FLIGHT, pinned=on_gpu)
        outputs = (self._prefetch + 3) * len(dataset.policies)
        self._outputs = Buffers(outputs, pinned=bool(pin_memory) and not on_gpu and torch.cuda.is_available())
        self._meter = Meter()
        self._faults: list[dict] = []
        self._iterator: weakref.ref | None = None

    # Order -----------------------------------------------------------------------------------------------------------

    def _order(self, epoch: int):
        if self.batch_sampler is not None:
            return GivenOrder(list(self.batch_sampler))
        if self.sampler is not None:
            return GivenOrder.of_samples(self.sampler, self.batch_size, self.drop_last)
        return EpochOrder(
            len(self.dataset),
            self.batch_size * self.world_size,
            seed=self.seed,
            epoch=epoch,
            shuffle=self._shuffle,
            drop_last=self.drop_last,
            groups=self._groups,
        )

    @property
    def _given(self) -> bool:
        return self.sampler is not None or self.batch_sampler is not None

    def __len__(self) -> int:
        """Batches an epoch, the same on every rank."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)
        if self.sampler is not None:
            count = len(self.sampler)
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        return len(self._order(0))

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iterator starts, from its beginning."""
        self._epoch, self._position, self._started = int(epoch), 0, False
        for given in (self.sampler, self.batch_sampler):
            if hasattr(given, "set_epoch"):
                given.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """Where this loader is: the epoch, and the batches of it that were delivered. Plain integers."""
        return {"epoch": self._epoch, "step": self._position, "seed": self.seed, "samples": len(self.dataset)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where :meth:`state_dict` was taken: the next iterator delivers the rest of that epoch."""
        for name, mine in (("seed", self.seed), ("samples", len(self.dataset))):
            if int(state[name]) != mine:
                raise UsageError(
                    f"the saved state has {name} {state[name]}, this loader {mine}: they are not the same run"
                )
        self._epoch, self._position, self._started = int(state["epoch"]), int(state["step"]), False

    # Streaming -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator:
        previous = self._iterator() if self._iterator is not None else None
        if previous is not None:
            previous.close()
        if self._started:
            self._epoch, self._position = self._epoch + 1, 0
        self._started = True
        self._meter.paused()
        iterator = _EpochIterator(self, self._order(self._epoch), self._position)
        self._iterator = weakref.ref(iterator)
        return iterator

    def report(self) -> dict:
        """What happened so far: sites, rates, shares of time, faults, and a verdict in one sentence."""
        meter = self._meter
        return {
            "sentence": meter.sentence(),
            "sites": meter.sites,
            "batches": meter.batches,
            "waited_s": meter.waited,
            "worked_s": meter.worked,
            "waiting_share": meter.waiting_share,
            "stages_s": dict(meter.stages),
            "faults": list(self._faults),
        }


class _EpochIterator:
    """Batches of one epoch. Threads hold its queue and not itself, so that dropping it ends them."""

    def __init__(self, loader: DataLoader, order, first_step: int):
        self._loader, self._step, self._steps = loader, first_step, len(order)
        self._queue: queue.Queue = queue.Queue(maxsize=loader._prefetch)
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._done = False
        pool = ThreadPoolExecutor(loader.num_threads, thread_name_prefix="rxrx_fast")
        if loader._device_index is None:
            device = CpuDevice(pool, loader._outputs, loader._meter, loader._channels_last)
        else:
            device = CudaDevice(loader._device_index, loader._channels_last)
        self._device = device
        producer = _Producer(loader, order, first_step, device, pool, self._queue, self._stop)
        self._thread = threading.Thread(target=producer.run, name="rxrx_fast producer", daemon=True)
        self._finalizer = weakref.finalize(self, _shut_down, self._stop, self._thread, self._pid)
        self._thread.start()

    def __iter__(self):
        return self

    def __len__(self) -> int:
        return self._steps

    def __next__(self):
        if self._done:
            raise StopIteration
        if os.getpid() != self._pid:
            raise RuntimeError("an iterator of rx.DataLoader can't be used in a forked process: make one there")
        meter = self._loader._meter
        asked = meter.asked()
        item = self._get()
        if isinstance(item, BaseException):
            self.close()
            raise item
        if item is None:
            meter.paused()
            self.close()
            raise StopIteration
        tensors, ready, labels, meta = item
        self._device.hand_over(tensors, ready)
        self._step += 1
        self._loader._position = self._step
        meter.delivered(asked, len(labels))
        return (tensors[0] if len(tensors) == 1 else tensors), labels, meta

    def _get(self):
        while True:
            try:
                return self._queue.get(timeout=_LOOK_S)
            except queue.Empty:
                if not self._thread.is_alive() and self._queue.empty():
                    raise RuntimeError(
                        "the loader's background thread ended without a word; please report this"
                    ) from None

    def close(self) -> None:
        """End the threads now. Batches already delivered stay valid."""
        self._done = True
        self._finalizer()


def _shut_down(stop: threading.Event, thread: threading.Thread, pid: int) -> None:
    stop.set()
    # Not in a forked child, where the thread does not exist; not from the producer itself, which can be the one that
    # drops the last reference.
    if os.getpid() == pid and thread is not threading.current_thread() and thread.is_alive():
        thread.join(_JOIN_S)


class _Producer:
    """The background thread's work: order -> pipeline -> device -> queue."""

    def __init__(self, loader: DataLoader, order, first_step, device, pool, output: queue.Queue, stop: threading.Event):
        # No reference to the loader or its iterator: the thread must not keep them alive.
        self._dataset, self._order, self._first_step = loader.dataset, order, first_step
        self._given, self._rank, self._world_size = loader._given, loader.rank, loader.world_size
        self._seed, self._epoch = loader.seed, loader._epoch
        self._threads, self._meter, self._stacks = loader.num_threads, loader._meter, loader._stacks
        self._on_error, self._max_errors, self._faults = loader._on_error, loader._max_errors, loader._faults
        self._batch_size = max((len(b) for b in order._batches), default=1) if self._given else loader.batch_size
        self._device, self._pool, self._queue, self._stop = device, pool, output, stop
        self._epoch_faults = 0

    def _batches(self) -> Iterator[np.ndarray]:
        for step in range(self._first_step, len(self._order)):
            if self._stop.is_set():
                return
            batch = self._order[step]
            yield batch if self._given else rank_part(batch, self._rank, self._world_size)

    def _on_fault(self, position: int, fault: SiteError) -> int:
        self._faults.append(
            {"epoch": self._epoch, "site_id": fault.site_id, "path": fault.path, "reason": fault.reason}
        )
        self._epoch_faults += 1
        if self._on_error == "raise":
            raise fault
        if self._epoch_faults > self._max_errors:
            raise DataError(
                f"{self._epoch_faults} sites could not be read in this epoch, and max_errors={self._max_errors}; "
                f"the last: {fault}"
            )
        warnings.warn(f"{fault}; another site takes its place", stacklevel=2)
        site = int(self._dataset.catalog.table.index[position])
        return int(uniform(self._seed, self._epoch, site, self._epoch_faults) * len(self._dataset))

    def run(self) -> None:
        pipeline = None
        try:
            pipeline = SitePipeline(
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
            for decoded in pipeline:
                if self._stop.is_set():
                    return
                positions = decoded.positions
                views = self._dataset.parameters(positions, self._seed, self._epoch)
                mixed = self._dataset.mixing(positions, self._seed, self._epoch)
                tensors, ready = self._device.finish(decoded, views, self._dataset.dtype, mixed)
                labels = torch.from_numpy(self._dataset.batch_labels(positions, mixed))
                meta = {name: torch.from_numpy(codes) for name, codes in self._dataset.meta(positions).items()}
                item = (tensors, ready, labels, meta)
                # Nothing here may keep a delivered batch's memory from being used again.
                del decoded, tensors, ready, views
                self._meter.timed("deliver", self._put, item)
                del item
            self._put(None)
        except BaseException as error:
            self._put(error)
        finally:
            self._device.close()
            if pipeline is not None:
                pipeline.close()
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _put(self, item) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_S)
                return
            except queue.Full:
                continue


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if distributed else 0
    if world_size is None:
        world_size = torch.distributed.get_world_size() if distributed else 1
    if not 0 <= rank < world_size:
        raise UsageError(f"rank={rank}, world_size={world_size}: the rank must be 0 to world_size - 1")
    return int(rank), int(world_size)


def _threads(wanted: int | None) -> int:
    if wanted is not None:
        if wanted < 1:
            raise UsageError(f"num_threads={wanted}: must be at least 1")
        return int(wanted)
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, len(os.sched_getaffinity(0)) // local_ranks)
