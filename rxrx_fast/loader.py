"""DataLoader: the thin PyTorch iterator over finished batches.

Here is what a user types and where a run is: arguments, epochs, states, reports. One background thread an epoch
(:mod:`rxrx_fast.deliver.producer`) walks the order, lets :class:`SitePipeline` decode and a device finish, and puts batches
into a short queue, which :class:`rxrx_fast.deliver.iterator.EpochIterator` empties. The loader does no arithmetic on pixels.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import cached_property

import torch

from rxrx_fast.dataset import Dataset
from rxrx_fast.decode.pipeline import BATCHES_IN_FLIGHT
from rxrx_fast.deliver import arguments
from rxrx_fast.deliver import state as resume
from rxrx_fast.deliver.faults import Faults
from rxrx_fast.deliver.iterator import EpochIterator
from rxrx_fast.devices.device import CpuDevice, resolve
from rxrx_fast.errors import UsageError
from rxrx_fast.order.epoch import GivenOrder
from rxrx_fast.order.spec import Plan
from rxrx_fast.runtime.buffers import Buffers
from rxrx_fast.runtime.meter import Meter

__all__ = ["DataLoader"]

#: Longer than any healthy file system takes, shorter than a night.
TIMEOUT_S = 600.0


class DataLoader:
    """Streams batches ``(images, labels, meta)`` of a :class:`Dataset`; takes the place of torch's DataLoader.

    ``images`` is a (B, C, H, W) tensor, or a tuple of them where the data set has several views; ``labels`` is (B,)
    int64, or (B, K) float32 shares of the K labels where the policy mixes samples; ``meta`` a dict of (B,) int64
    tensors. Images are on ``device``, the rest on the CPU.

    Parameters
    ----------
    dataset : Dataset
    batch_size : int
        Per rank; the global batch is ``batch_size * world_size``.
    shuffle : bool
        A new order each epoch, a pure function of (seed, epoch).
    sampler, batch_sampler : iterable, optional
        Any torch sampler of sample numbers, or of lists of them. It shards by itself (as torch's DistributedSampler
        does). What it draws from torch's global generator is drawn under (seed, epoch), and the generator put back.
    drop_last : bool
        Leave out a short last batch; with ``group_by``, each group's.
    seed : int
        Of the order and of the augmentation.
    group_by : {None, "plate", "experiment", "cell_type"}
        Every batch from one group. Each site still comes once an epoch; each group's last batch may be short.
        ``meta["group"]`` is the group's code, a position in the names that ``catalog.group_keys(group_by)`` returns.
    whole_groups : bool
        With ``group_by``: the batches of a group follow one another until all of it has come, as AdaBN and BEN want for
        evaluation, and ``meta["group_batches_left"]`` is 0 in a group's last batch. A group is cut into batches of
        ``batch_size`` because it is large (a plate of RxRx1: 616 sites, 3.9 GB in float32, and ``prefetch_factor + 3``
        batches are in memory at once); a ``batch_size`` of at least the largest group makes each batch one entire
        group. Several ranks share each batch.
    balance_by : {None, "label", "well_type", "plate", "experiment", "cell_type"}
        Every class as often as every other, in each batch and over the epoch, in random order; an epoch is as long as
        the data set, so a small class's sites come several times and a large one's not all. Sites without a label
        are left out with "label".
    sites_per_label : int, optional
        Batches of ``batch_size / sites_per_label`` different labels with so many sites of each in a row, in random
        order, for metric learning. Sites without a label are left out.
    device : str or torch.device
        "auto" takes the current GPU where there is one and what it needs is installed, else the CPU.
    channels_last : bool
        Images in torch's channels-last memory format.
    num_threads : int, optional
        Threads that read and finish, and as many in DALI that decode. By default the cores that this process may use;
        under torchrun this rank's share of them, next to its GPU where the system tells, to which the loader's threads
        are then bound (:mod:`rxrx_fast.runtime.topology`; ``RXRX_FAST_BIND=off`` leaves them free). ``num_workers``, if given
        and positive, means the same.
    prefetch_factor : int
        Finished batches that wait for the consumer.
    rank, world_size : int, optional
        By default those of ``torch.distributed``, where it is initialised before the first epoch. Where a last global
        batch does not divide by the ranks, its first samples are repeated, so that all ranks take the same number of
        steps; with several ranks ``meta["repeated"]`` is 1 for those, to be left out of a metric.
    on_error : {"raise", "skip"}
        With "skip", a site that can't be read is replaced by another (of its group with ``group_by``; of its class
        with ``balance_by`` and ``sites_per_label``, where one is left; of the sampler's, with a sampler), chosen by
        (seed, epoch, site) alone, logged to the logger "rxrx_fast" in one line, and listed in :meth:`report`.
    max_errors : int
        With "skip": more faults than this in an epoch, on one rank, are an error after all.
    timeout : float
        Seconds that a batch may be waited for before a :class:`StalledError` says which file it is; 0 waits for ever.
    pin_memory : bool
        Page-locked CPU output, where torch has a GPU.
    **others
        torch's further arguments are accepted where they change nothing in what is delivered, and refused with the
        reason where they would.

    Notes
    -----
    An iterator starts the epoch that :meth:`set_epoch` names; without it, each new iterator starts the next one. One
    iterator of a loader works at a time. The threads end when the epoch does, when the iterator is dropped or closed,
    or with the interpreter.

    Examples
    --------
    >>> dataset = rx.Dataset(root, normalize="plate", augment="wilds")
    >>> loader = rx.DataLoader(dataset, batch_size=16, shuffle=True, device="cpu")
    >>> len(loader)
    3
    >>> for images, labels, meta in loader:
    ...     print(tuple(images.shape), images.dtype, tuple(labels.shape))
    (16, 6, 64, 64) torch.float32 (16,)
    (16, 6, 64, 64) torch.float32 (16,)
    (16, 6, 64, 64) torch.float32 (16,)
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
        whole_groups: bool = False,
        balance_by: str | None = None,
        sites_per_label: int | None = None,
        device: str | torch.device = "auto",
        channels_last: bool = False,
        num_threads: int | None = None,
        num_workers: int | None = None,
        prefetch_factor: int | None = 2,
        rank: int | None = None,
        world_size: int | None = None,
        on_error: str = "raise",
        max_errors: int = 100,
        timeout: float = TIMEOUT_S,
        pin_memory: bool = False,
        generator: torch.Generator | None = None,
        **others,
    ):
        if not isinstance(dataset, Dataset):
            raise UsageError(
                f"rx.DataLoader streams an rx.Dataset, not a {type(dataset).__name__}: build rx.Dataset(root, ...), "
                "or keep torch.utils.data.DataLoader for this data set"
            )
        arguments.refuse(others)
        prefetch_factor = 2 if prefetch_factor is None else prefetch_factor
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("max_errors", max_errors, 0),
            ("prefetch_factor", prefetch_factor, 1),
            ("sites_per_label", 1 if sites_per_label is None else sites_per_label, 1),
        ):
            arguments.check_count(name, value, least)
        arguments.check_timeout(timeout)
        self.plan = Plan(
            bool(shuffle), bool(drop_last), sampler, batch_sampler, group_by, whole_groups, balance_by, sites_per_label
        )
        self.dataset, self.batch_size, self.drop_last = dataset, int(batch_size), bool(drop_last)
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.seed = int(seed) if generator is None else int(generator.initial_seed())
        self.prefetch_factor, self.timeout = int(prefetch_factor), float(timeout)
        self._faults = Faults(on_error, max_errors)
        self._device_index = resolve(device)
        self.device = torch.device("cpu") if self._device_index is None else torch.device("cuda", self._device_index)
        self._channels_last = bool(channels_last)
        if self._device_index is None:
            CpuDevice.warm_up(dataset.dtype, self._channels_last, not dataset.only_turns, dataset.store.dtype)
        self._told_ranks = rank is not None or world_size is not None
        self.rank, self.world_size = arguments.ranks(rank, world_size)
        self.num_threads, self._cores = arguments.threads(num_threads or num_workers or None, self._device_index)
        # Of a sampler, only what it has drawn says how many batches it gives.
        self._codes = self.plan.codes(dataset)
        self._steps = None if self.plan.sampled else len(self._order(0))
        self._epoch, self._position = 0, 0
        # Whether an iterator was made since the epoch was chosen, ended it, and whether a state chose it.
        self._started, self._ended, self._resumed = False, False, False
        self._drawn: dict = {}
        # Memory outlives an epoch: the first touch of fresh pages costs more than all arithmetic. Outputs are in the
        # queue, with the producer, with the consumer, and one more that the consumer has not dropped yet.
        on_gpu = self._device_index is not None
        self._stacks = Buffers(BATCHES_IN_FLIGHT, pinned=on_gpu)
        outputs = (self.prefetch_factor + 3) * len(dataset.policies)
        self._outputs = Buffers(outputs, pinned=bool(pin_memory) and not on_gpu and torch.cuda.is_available())
        # More threads than cores help nothing that computes.
        self._meter = Meter(
            "threads" if self.num_threads < arguments.threads(None, self._device_index).count else "cores"
        )
        self._iterator: weakref.ref | None = None

    def _order(self, epoch: int):
        return self.plan.order(
            len(self.dataset), self._codes, self.batch_size, self.world_size, seed=self.seed, epoch=epoch
        )

    def _meet_ranks(self) -> None:
        """Take this process's place in a group that was made after the loader, as launchers and trainers do."""
        if self._told_ranks or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        found = arguments.ranks(None, None)
        if found == (self.rank, self.world_size):
            return
        if self._started or self._resumed:
            raise UsageError(
                f"torch.distributed makes this rank {found[0]} of {found[1]}, and the loader began as rank {self.rank} "
                f"of {self.world_size}: initialise it before the first epoch, or give rank and world_size"
            )
        self.rank, self.world_size = found
        self.__dict__.pop("_run", None)
        self._steps = None if self.plan.sampled else len(self._order(0))

    def __len__(self) -> int:
        """Batches an epoch, the same on every rank."""
        self._meet_ranks()
        if self.batch_sampler is not None:
            return len(self.batch_sampler)
        if self.sampler is not None:
            count = len(self.sampler)
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        return self._steps

    # Where a run is --------------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iterator starts, from its beginning; passed on to a sampler.

        After :meth:`load_state_dict`, the epoch that the state is in goes on where the state was taken: a training loop
        that calls ``set_epoch`` at the top resumes as it is.

        Examples
        --------
        >>> loader = rx.DataLoader(rx.Dataset(root), batch_size=16, shuffle=True, device="cpu")
        >>> loader.set_epoch(3)
        >>> loader.state_dict()["epoch"]
        3
        """
        for given in (self.sampler, self.batch_sampler):
            if hasattr(given, "set_epoch"):
                given.set_epoch(epoch)
        if self._resumed and int(epoch) == self._epoch:
            return
        self._epoch, self._position, self._drawn = int(epoch), 0, {}
        self._started = self._ended = self._resumed = False

    @cached_property
    def _run(self) -> dict[str, int | str]:
        """What a state says of this run, apart from where it is."""
        # The batches of a batch sampler are of its own making.
        batch = self.batch_size * self.world_size if self.batch_sampler is None else 0
        return resume.state(self.dataset, seed=self.seed, global_batch=batch, order=str(self.plan))

    def state_dict(self) -> dict[str, int | str]:
        """Where this loader is: the epoch, and the batches of it that were delivered; and of what run.

        Plain integers and strings, less than 1 KB as JSON, the same on every rank (but for what a sampler drew).
        Batches that are ready and were not delivered yet are not in it. Take it at any time, also between epochs.

        Examples
        --------
        >>> loader = rx.DataLoader(rx.Dataset(root), batch_size=16, shuffle=True, device="cpu")
        >>> batches = iter(loader)
        >>> images, labels, meta = next(batches)
        >>> state = loader.state_dict()
        >>> state["epoch"], state["step"], state["global_batch"]
        (0, 1, 16)
        """
        self._meet_ranks()
        place = (self._epoch + 1, 0) if self._ended else (self._epoch, self._position)
        drawn = {} if self._ended else self._drawn
        return {"epoch": place[0], "step": place[1], **self._run, **drawn}

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Go on where :meth:`state_dict` was taken: the next iterator delivers the rest of that epoch.

        The number of ranks may be another one (with the same global batch), and so may threads, device, dtype, views,
        ``prefetch_factor`` and ``on_error``: the batches that follow have the sites, and the sites the draws, that they
        would have had. A sampler must give the same batches for the epoch again; that is checked when the iterator
        starts, on the rank that took the state.

        Raises
        ------
        UsageError
            If the state is of other sites, another seed, global batch or order; it says which.

        Examples
        --------
        >>> loader = rx.DataLoader(rx.Dataset(root), batch_size=16, shuffle=True, device="cpu")
        >>> batches = iter(loader)
        >>> images, labels, meta = next(batches)
        >>> resumed = rx.DataLoader(rx.Dataset(root), batch_size=16, shuffle=True, device="cpu")
        >>> resumed.load_state_dict(loader.state_dict())
        >>> len(list(resumed)), len(list(batches))
        (2, 2)
        """
        self._meet_ranks()
        resume.check(state, self._run)
        if self._iterator is not None and (live := self._iterator()) is not None:
            live.supersede()
        self._epoch, self._position = int(state["epoch"]), int(state["step"])
        self._drawn = {name: state[name] for name in ("sampler", "rank", "world_size") if name in state}
        self._started, self._ended, self._resumed = False, False, True

    def _check_sampler(self, order: GivenOrder) -> None:
        """Refuse to go on with a sampler that gives other batches than those of which some were delivered."""
        found = {"sampler": order.digest(), "rank": self.rank, "world_size": self.world_size}
        before, self._drawn = self._drawn, found
        same_place = all(before.get(name) == found[name] for name in ("rank", "world_size"))
        if self._position and same_place and before["sampler"] != found["sampler"]:
            raise UsageError(
                f"the sampler gives other batches than it did in epoch {self._epoch} when the state was taken: let it "
                "depend on set_epoch alone, and call that before the loop"
            )

    def __iter__(self) -> Iterator:
        self._meet_ranks()
        previous = self._iterator() if self._iterator is not None else None
        if previous is not None:
            previous.supersede()
        if self._started:
            self._epoch, self._position, self._drawn = self._epoch + 1, 0, {}
        order = self._order(self._epoch)
        if self.plan.sampled:
            self._check_sampler(order)
        self._started, self._ended, self._resumed = True, False, False
        self._meter.paused()
        self._faults.start_epoch()
        iterator = EpochIterator(self, order, self._epoch, self._position)
        self._iterator = weakref.ref(iterator)
        return iterator

    def _delivered(self, iterator: EpochIterator, step: int) -> None:
        if self._is_current(iterator):
            self._position = step

    def _finished(self, iterator: EpochIterator) -> None:
        if self._is_current(iterator):
            self._ended = True

    def _is_current(self, iterator: EpochIterator) -> bool:
        # One that was left for another epoch or state has no say in where this loader is.
        return self._started and self._iterator is not None and self._iterator() is iterator

    def report(self) -> dict:
        """What happened so far: sites, rates, shares of time, faults, and a verdict in one sentence.

        Returns
        -------
        dict
            sentence; sites, batches; waited_s, worked_s and waiting_share (0 to 1) of the consumer's time, and
            waited_for_first_s, for the first batches of epochs; stages_s (seconds of threads at work) and rates (sites
            a second and thread), by stage; queue_depth (batches that were ready) and wait_s, as p50, p90, p99; faults
            (a list of dict of site_id, path, reason, the first epoch, and times).

        Examples
        --------
        >>> loader = rx.DataLoader(rx.Dataset(root), batch_size=16, shuffle=True, device="cpu")
        >>> batches = list(loader)
        >>> report = loader.report()
        >>> report["sites"], report["batches"], report["faults"]
        (48, 3, [])
        """
        return {**self._meter.report(), "faults": self._faults.listed()}

    def scalars(self) -> dict[str, float]:
        """Return the report's numbers as one flat dictionary, for TensorBoard or any logger; see :meth:`report`.

        Examples
        --------
        >>> loader = rx.DataLoader(rx.Dataset(root), batch_size=16, shuffle=True, device="cpu")
        >>> batches = list(loader)
        >>> loader.scalars()["faults"]
        0.0
        """
        return {**self._meter.scalars(), "faults": float(self._faults.count), "epoch": float(self._epoch)}

    def progress(self) -> str:
        """Say in one short line where the loader is and who waits for whom.

        Examples
        --------
        >>> loader = rx.DataLoader(rx.Dataset(root), batch_size=16, shuffle=True, device="cpu")
        >>> batches = list(loader)
        >>> loader.progress()
        'epoch 0, batch 3 of 3, ... sites/s, waited for data ...% of the time, ... of 2 batches ready, 0 faults'
        """
        meter = self._meter
        ready = meter.depths().get("p50", 0)
        return (
            f"epoch {self._epoch}, batch {self._position} of {len(self)}, {meter.rate:.0f} sites/s, waited for data "
            f"{meter.waiting_share:.0%} of the time, {ready} of {self.prefetch_factor} batches ready, "
            f"{self._faults.count} faults"
        )
