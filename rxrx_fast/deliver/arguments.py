"""Arguments of the loader: which of torch's are refused, ranks, and threads."""

from __future__ import annotations

import numpy as np
import torch

from rxrx_fast.errors import UsageError
from rxrx_fast.runtime import topology

__all__ = ["check_count", "check_timeout", "ranks", "refuse", "threads"]

# Arguments of torch's DataLoader that have no meaning here and change nothing in what is delivered.
_HARMLESS = {"persistent_workers", "multiprocessing_context", "pin_memory_device", "in_order"}
_REFUSED = {
    "collate_fn": "batches come collated; apply the function to the batch inside the loop",
    "worker_init_fn": "there are no worker processes",
}


def refuse(others: dict) -> None:
    """Refuse arguments of torch's DataLoader that would change what is delivered, and unknown ones."""
    for name, value in others.items():
        if name in _REFUSED:
            if value is not None:
                raise UsageError(f"{name} has no place in rx.DataLoader: {_REFUSED[name]}")
        elif name not in _HARMLESS:
            raise UsageError(f"rx.DataLoader has no argument {name!r}")


def ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return rank and world size: those given, else those of ``torch.distributed``."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if distributed else 0
    if world_size is None:
        world_size = torch.distributed.get_world_size() if distributed else 1
    if not 0 <= rank < world_size:
        raise UsageError(f"rank={rank}, world_size={world_size}: the rank must be 0 to world_size - 1")
    return int(rank), int(world_size)


def threads(wanted: int | None, device: int | None) -> topology.Threads:
    """Return the number of threads and the cores that they are bound to."""
    if wanted is not None and wanted < 1:
        raise UsageError(f"num_threads={wanted}: must be at least 1")
    addresses = () if device is None else topology.pci_addresses()
    return topology.threads(None if wanted is None else int(wanted), device, addresses)


def check_count(name: str, value: object, least: int) -> None:
    """Refuse what is not a whole number of at least ``least``."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name}={value!r}: must be a whole number of at least {least}")


def check_timeout(timeout: object) -> None:
    """Refuse what is not a number of seconds, or 0."""
    if not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise UsageError(f"timeout={timeout!r}: must be a number of seconds, or 0 to wait for ever")
