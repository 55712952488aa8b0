"""Several GPUs on a machine: which one is this process's, and which processor cores are next to it.

``torchrun`` starts one process a GPU and tells each LOCAL_RANK and LOCAL_WORLD_SIZE. Rank r takes GPU r, and of the
cores an equal share: those of the NUMA node that its GPU hangs on, if the system tells, so that files, page-locked
memory and the bus they cross are on one side of the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Place", "bind", "device_of_rank", "numa_node", "parse_cores", "pci_addresses", "place"]

_SYSFS = Path("/sys")


class Place(NamedTuple):
    """Where a process works: ``node`` is the NUMA node of its GPU, or None; ``cores`` its share of the processor."""

    node: int | None
    cores: tuple[int, ...]


def device_of_rank(count: int, current: int, environment: Mapping[str, str] = os.environ) -> int:
    """The GPU of this process.

    Parameters
    ----------
    count : int
        GPUs that the process sees.
    current : int
        torch's current device. If it is not 0, somebody has set it, and it stands.
    environment : mapping
        With LOCAL_RANK under torchrun. More ranks than GPUs share them in turns.
    """
    rank = _number(environment, "LOCAL_RANK")
    return current if rank is None or current != 0 or count < 1 else rank % count


def place(
    device: int | None,
    addresses: Sequence[str] = (),
    *,
    environment: Mapping[str, str] = os.environ,
    sysfs: Path = _SYSFS,
    allowed: Iterable[int] | None = None,
) -> Place:
    """This process's share of the machine's cores.

    Parameters
    ----------
    device : int or None
        Its GPU; None for a process without one.
    addresses : sequence of str
        PCI address of each GPU, such as "0000:1b:00.0" (:func:`pci_addresses`).
    environment : mapping
        With LOCAL_RANK and LOCAL_WORLD_SIZE under torchrun; without them the process is alone.
    sysfs : Path
    allowed : iterable of int, optional
        Cores that the process may use, by default what the system says.

    Returns
    -------
    Place
        At least one core. Without a known node, or with none of its cores allowed, the share is of all allowed cores.
    """
    mine = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    ranks = max(1, _number(environment, "LOCAL_WORLD_SIZE") or 1)
    rank = min(_number(environment, "LOCAL_RANK") or 0, ranks - 1)
    nodes = [numa_node(address, sysfs) for address in addresses]
    node = nodes[device] if device is not None and device < len(nodes) else None
    near = [core for core in mine if core in _cores_of(node, sysfs)] if node is not None else []
    if not near:
        return Place(None, _part(mine, rank, ranks))
    # Who shares this node: rank r has GPU r, as device_of_rank deals them out.
    neighbours = [r for r in range(ranks) if nodes[r % len(nodes)] == node]
    if rank not in neighbours:
        return Place(node, _part(near, 0, 1))
    return Place(node, _part(near, neighbours.index(rank), len(neighbours)))


def _part(cores: list[int], index: int, parts: int) -> tuple[int, ...]:
    """The index-th of so many nearly equal stretches; where there are fewer cores than parts, one core each."""
    if parts >= len(cores):
        return (cores[index % len(cores)],)
    return tuple(cores[len(cores) * index // parts : len(cores) * (index + 1) // parts])


def bind(cores: Sequence[int]) -> None:
    """Keep the calling thread on these cores; for a thread pool's ``initializer``. Nothing where the system won't."""
    try:
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError):
        # Sandboxes refuse it; a thread that is free to move is still right.
        pass


def numa_node(address: str, sysfs: Path = _SYSFS) -> int | None:
    """The NUMA node that a PCI device hangs on; None where the system does not tell (it then says -1)."""
    try:
        node = int((sysfs / "bus/pci/devices" / address.lower() / "numa_node").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def _cores_of(node: int, sysfs: Path) -> frozenset[int]:
    try:
        return parse_cores((sysfs / f"devices/system/node/node{node}/cpulist").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return frozenset()


def parse_cores(text: str) -> frozenset[int]:
    """The kernel's list format: "0-3,8" is {0, 1, 2, 3, 8}.

    Raises
    ------
    ValueError
        If it is something else.
    """
    cores: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cores.update(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def pci_addresses() -> list[str]:
    """PCI address of each GPU that torch sees, in its order; empty where torch does not tell."""
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        if not hasattr(properties, "pci_bus_id"):
            return []
        found.append(f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0")
    return found


def _number(environment: Mapping[str, str], name: str) -> int | None:
    value = environment.get(name, "")
    return int(value) if value.isdigit() else None
