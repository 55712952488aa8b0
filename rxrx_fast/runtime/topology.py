"""Which GPU of several belongs to this process, and which processor cores are next to it.

``torchrun`` starts one process a GPU and sets LOCAL_RANK and LOCAL_WORLD_SIZE. Rank r takes GPU r and an equal share of
the cores: those of the GPU's NUMA node, if the system tells it, so that files, page-locked memory and the bus are on
one side of the machine. The loader's threads, and those that they start, are bound to the share; the caller's own
threads never are. ``RXRX_FAST_BIND=off`` binds none, for launchers that give each rank cores of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rxrx_fast.errors import UsageError

__all__ = ["Place", "Threads", "bind", "device_of_rank", "numa_node", "parse_cores", "pci_addresses", "place"]
__all__ += ["threads"]

_SYSFS = Path("/sys")


class Place(NamedTuple):
    """Where a process works: ``node`` is the NUMA node of its GPU or None, ``cores`` its share of the processor."""

    node: int | None
    cores: tuple[int, ...]


class Threads(NamedTuple):
    """The loader's threads: their number, and the ``cores`` that they are bound to; None if they are not bound."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls here
    cores: tuple[int, ...] | None


def threads(
    wanted: int | None,
    device: int | None,
    addresses: Sequence[str] = (),
    *,
    environment: Mapping[str, str] = os.environ,
    sysfs: Path = _SYSFS,
    allowed: Iterable[int] | None = None,
) -> Threads:
    """Decide how many threads a loader starts, and where they run.

    One rank of several starts a thread for each core of its share, bound to that share. A single process may use all
    its cores; its threads are bound to its GPU's node only if it asks for no more threads than the node has cores,
    because a core far from the GPU is better than none.

    Parameters
    ----------
    wanted : int or None
        What the user asked for.
    device, addresses, environment, sysfs, allowed
        As for :func:`place`.

    Raises
    ------
    UsageError
        If ``RXRX_FAST_BIND`` is neither "auto" nor "off".
    """
    mine = tuple(sorted(os.sched_getaffinity(0) if allowed is None else allowed))
    ranks = max(1, _number(environment, "LOCAL_WORLD_SIZE") or 1)
    asked = environment.get("RXRX_FAST_BIND", "auto")
    if asked not in ("auto", "off"):
        raise UsageError(f"RXRX_FAST_BIND={asked!r}: must be 'auto' or 'off'")
    if asked == "off" or (ranks > 1 and _number(environment, "LOCAL_RANK") is None):
        return Threads(wanted or max(1, len(mine) // ranks), None)
    cores = place(device, addresses, environment=environment, sysfs=sysfs, allowed=mine).cores
    if ranks == 1 and (wanted is None or wanted > len(cores)):
        return Threads(wanted or len(mine), None)
    return Threads(wanted or len(cores), None if cores == mine else cores)


def device_of_rank(count: int, current: int, environment: Mapping[str, str] = os.environ) -> int:
    """Return the GPU of this process.

    Parameters
    ----------
    count : int
        GPUs that the process sees.
    current : int
        torch's current device. If it is not 0, somebody has set it, and it is kept.
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
    """Return this process's share of the machine's cores.

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
    # Hyperthreads of a core go to one rank: they share caches and execution units.
    mine.sort(key=lambda core: (_first_sibling(core, sysfs), core))
    on_node = _cores_of(node, sysfs) if node is not None else ()
    near = [core for core in mine if core in on_node]
    if not near:
        return Place(None, _part(mine, rank, ranks))
    # Ranks that share this node: rank r has GPU r, see device_of_rank.
    neighbours = [r for r in range(ranks) if nodes[r % len(nodes)] == node]
    if rank not in neighbours:
        return Place(node, _part(near, 0, 1))
    return Place(node, _part(near, neighbours.index(rank), len(neighbours)))


def _part(cores: list[int], index: int, parts: int) -> tuple[int, ...]:
    """Return one of several nearly equal stretches of cores; if there are fewer cores than parts, one core."""
    if parts >= len(cores):
        return (cores[index % len(cores)],)
    return tuple(sorted(cores[len(cores) * index // parts : len(cores) * (index + 1) // parts]))


def bind(cores: Sequence[int]) -> None:
    """Keep the calling thread, and threads that it starts, on these cores; for a thread pool's ``initializer``.

    Do nothing where the system refuses.
    """
    # Sandboxes refuse it, and not every system has it; threads that are not bound still work.
    with suppress(AttributeError, OSError):
        os.sched_setaffinity(0, cores)


def numa_node(address: str, sysfs: Path = _SYSFS) -> int | None:
    """Return the NUMA node of a PCI device; None if the system does not know it (it then says -1)."""
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


def _first_sibling(core: int, sysfs: Path) -> int:
    """Return the first hyperthread of a core's physical core; the core itself if the system does not tell."""
    path = sysfs / f"devices/system/cpu/cpu{core}/topology/thread_siblings_list"
    try:
        return min(parse_cores(path.read_text(encoding="ascii")), default=core)
    except (OSError, ValueError):
        return core


def parse_cores(text: str) -> frozenset[int]:
    """Parse the kernel's list format: "0-3,8" is {0, 1, 2, 3, 8}.

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
    """Return the PCI address of each GPU that torch sees, in its order; empty if torch does not tell."""
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        properties: Any = torch.cuda.get_device_properties(index)
        if not hasattr(properties, "pci_bus_id"):
            return []
        found.append(f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0")
    return found


def _number(environment: Mapping[str, str], name: str) -> int | None:
    value = environment.get(name, "")
    return int(value) if value.isdigit() else None
