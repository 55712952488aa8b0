"""Ranks, GPUs and NUMA nodes: on pretended machines, whose /sys is a folder of files."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from rxrx_fast import UsageError
from rxrx_fast.devices import device
from rxrx_fast.runtime import topology
from rxrx_fast.runtime.topology import Place, Threads, place


def machine(folder, nodes, gpus):
    """A /sys with ``nodes`` {node: cpulist} and ``gpus`` {address: numa_node}."""
    for node, cores in nodes.items():
        path = folder / f"devices/system/node/node{node}"
        path.mkdir(parents=True)
        (path / "cpulist").write_text(cores + "\n")
    for address, node in gpus.items():
        path = folder / "bus/pci/devices" / address
        path.mkdir(parents=True)
        (path / "numa_node").write_text(f"{node}\n")
    return folder


GPUS = {"0000:1b:00.0": 0, "0000:43:00.0": 0, "0000:9b:00.0": 1, "0000:c1:00.0": 1}


def ranks(sysfs, count, world, allowed, addresses=tuple(GPUS)):
    """The place of every rank."""
    return [
        place(
            rank % count, addresses, environment={"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)},
            sysfs=sysfs, allowed=allowed,
        )
        for rank in range(world)
    ]  # fmt: skip


def test_each_rank_gets_its_part_of_its_gpus_node(tmp_path):
    """Two sockets, four GPUs, four ranks: half a socket's cores each, hyperthreads included, none twice."""
    sysfs = machine(tmp_path, {0: "0-7,16-23", 1: "8-15,24-31"}, GPUS)
    found = ranks(sysfs, 4, 4, range(32))
    assert [one.node for one in found] == [0, 0, 1, 1]
    assert found[0].cores == tuple(range(8))
    assert found[1].cores == tuple(range(16, 24))
    assert sorted(core for one in found for core in one.cores) == list(range(32))


def test_hyperthreads_of_a_core_go_to_one_rank(tmp_path):
    """Where the system tells which cores are two sides of one, no rank waits for another's."""
    sysfs = machine(tmp_path, {0: "0-7,16-23", 1: "8-15,24-31"}, GPUS)
    for core in range(32):
        path = sysfs / f"devices/system/cpu/cpu{core}/topology"
        path.mkdir(parents=True)
        (path / "thread_siblings_list").write_text(f"{core % 16},{core % 16 + 16}\n")
    found = ranks(sysfs, 4, 4, range(32))
    assert found[0].cores == (0, 1, 2, 3, 16, 17, 18, 19)
    assert found[1].cores == (4, 5, 6, 7, 20, 21, 22, 23)
    assert sorted(core for one in found for core in one.cores) == list(range(32))


def test_only_allowed_cores_are_shared_out(tmp_path):
    """A container's or scheduler's restriction holds; a node with no allowed core is as good as unknown."""
    sysfs = machine(tmp_path, {0: "0-7", 1: "8-15"}, GPUS)
    found = ranks(sysfs, 4, 4, [0, 1, 2, 3])
    assert [one.cores for one in found[:2]] == [(0, 1), (2, 3)]
    assert [one.node for one in found[2:]] == [None, None]
    assert [one.cores for one in found[2:]] == [(2,), (3,)]


def test_more_ranks_than_cores(tmp_path):
    """Everybody has one core at least."""
    sysfs = machine(tmp_path, {0: "0-1", 1: "2-3"}, GPUS)
    assert all(len(one.cores) == 1 for one in ranks(sysfs, 4, 8, range(4)))


@pytest.mark.parametrize("gpus", [{}, dict.fromkeys(GPUS, -1), dict.fromkeys(GPUS, "unknown"), dict.fromkeys(GPUS, 7)])
def test_where_the_system_does_not_tell(tmp_path, gpus):
    """No file, -1, nonsense, or a node that does not exist: all allowed cores in equal parts."""
    sysfs = machine(tmp_path, {0: "0-7"}, gpus)
    assert ranks(sysfs, 4, 2, range(8)) == [Place(None, (0, 1, 2, 3)), Place(None, (4, 5, 6, 7))]


def test_alone(tmp_path):
    """Without torchrun a process has its GPU's whole node, and without a GPU every allowed core."""
    sysfs = machine(tmp_path, {0: "0-7", 1: "8-15"}, GPUS)
    assert place(2, tuple(GPUS), environment={}, sysfs=sysfs, allowed=range(16)) == Place(1, tuple(range(8, 16)))
    assert place(None, (), environment={}, sysfs=sysfs, allowed=range(16)) == Place(None, tuple(range(16)))
    assert set(place(None, environment={}).cores) == set(os.sched_getaffinity(0))


def test_gpu_of_a_rank():
    """Rank r takes GPU r, ranks beyond the GPUs share; a device that was set, or no rank, is left as it is."""
    for rank, count, current, wanted in ((3, 8, 0, 3), (5, 4, 0, 1), (3, 8, 2, 2), (1, 1, 0, 0)):
        assert topology.device_of_rank(count, current, {"LOCAL_RANK": str(rank)}) == wanted
    assert topology.device_of_rank(4, 0, {}) == 0
    assert topology.device_of_rank(4, 0, {"LOCAL_RANK": ""}) == 0


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_the_loader_takes_the_ranks_gpu(monkeypatch, asked):
    """device="auto" and "cuda" are the rank's own GPU; "cuda:1" is what it says."""
    monkeypatch.setattr(device, "missing_for_cuda", list)
    monkeypatch.setattr(device.torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(device.torch.cuda, "current_device", lambda: 0)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert device.resolve(asked) == 2
    assert device.resolve("cuda:1") == 1
    monkeypatch.delenv("LOCAL_RANK")
    assert device.resolve(asked) == 0


def told(sysfs, wanted, device, allowed=range(16), **environment):
    """The threads of a loader in such an environment."""
    return topology.threads(
        wanted, device, tuple(GPUS), environment=environment, sysfs=sysfs, allowed=allowed
    )  # fmt: skip


def test_threads_of_a_rank(tmp_path):
    """As many as its share has cores, bound to them; a number that is asked for stands, and is bound as well."""
    sysfs = machine(tmp_path, {0: "0-7", 1: "8-15"}, GPUS)
    rank = {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "4"}
    assert told(sysfs, None, 2, **rank) == Threads(4, (8, 9, 10, 11))
    assert told(sysfs, 9, 2, **rank) == Threads(9, (8, 9, 10, 11))
    assert told(sysfs, None, None, **rank) == Threads(4, (8, 9, 10, 11))
    # The scheduler's own restriction.
    assert told(sysfs, None, 2, allowed=[0, 1, 8, 9], **rank) == Threads(1, (8,))


def test_threads_are_left_free(tmp_path):
    """Alone on one node there is nothing to gain; of several, all cores are better than the GPU's; and on request."""
    one = machine(tmp_path / "one", {0: "0-15"}, dict.fromkeys(GPUS, 0))
    two = machine(tmp_path / "two", {0: "0-7", 1: "8-15"}, GPUS)
    assert told(one, None, 0) == told(one, None, None) == told(two, None, 3) == Threads(16, None)
    assert told(one, 3, 0) == Threads(3, None)
    assert told(two, 9, 3) == Threads(9, None)
    assert told(two, 8, 3) == Threads(8, tuple(range(8, 16)))
    rank = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert told(one, None, 1, **rank) == Threads(8, tuple(range(8, 16)))
    assert told(one, None, 1, RXRX_FAST_BIND="off", **rank) == Threads(8, None)
    # Who does not say which of them it is can't be told which cores are its own.
    assert told(one, None, 1, LOCAL_WORLD_SIZE="2") == Threads(8, None)
    with pytest.raises(UsageError, match="RXRX_FAST_BIND='no'"):
        told(one, None, 1, RXRX_FAST_BIND="no", **rank)


BOUND = """
import json, os, sys, threading
import rxrx_fast as rx
free = os.sched_getaffinity(0)
dataset = rx.Dataset(sys.argv[1], dtype="uint8")
loader = rx.DataLoader(dataset, 2, device="cpu")
before = {thread.native_id for thread in threading.enumerate()} | {int(task) for task in os.listdir("/proc/self/task")}
iterator = iter(loader)
next(iterator)
named = {t.native_id: t.name for t in threading.enumerate() if t.name.startswith("rxrx_fast")}
tasks = {int(task) for task in os.listdir("/proc/self/task")} - before
cores = {task: sorted(os.sched_getaffinity(task)) for task in tasks}
print(json.dumps({"threads": loader.num_threads, "main": sorted(os.sched_getaffinity(0)), "free": sorted(free),
                  "ours": {name: cores[task] for task, name in named.items()},
                  "others": [cores[task] for task in tasks if task not in named]}))
"""


@pytest.mark.slow(12)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_ranks_threads_keep_to_its_share(rxrx_root, rank):
    """In a real process: producer, pool and DALI threads are on the share, the main thread free as before."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        pytest.skip("one core: nothing to share out")
    environment = {**os.environ, "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, "-c", BOUND, rxrx_root]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    share = list(place(None, environment=environment).cores)
    assert 0 < len(share) < len(allowed)
    assert found["threads"] == len(share)
    assert found["main"] == found["free"] == allowed
    assert {"rxrx_fast producer", *(f"rxrx_fast_{i}" for i in range(len(share)))} <= set(found["ours"])
    assert all(cores == share for cores in found["ours"].values())
    # DALI's, which the producer starts.
    assert sum(cores == share for cores in found["others"]) >= len(share)


def test_core_lists():
    """The kernel's format, and what is none."""
    assert topology.parse_cores("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert topology.parse_cores("\n") == frozenset()
    with pytest.raises(ValueError, match="invalid literal"):
        topology.parse_cores("all")


def test_binding_is_of_the_thread_alone():
    """A pool's threads stay on their cores; the rest of the process is as free as before."""
    free = os.sched_getaffinity(0)
    core = min(free)
    with ThreadPoolExecutor(1, initializer=topology.bind, initargs=((core,),)) as pool:
        assert pool.submit(os.sched_getaffinity, 0).result() == {core}
    assert os.sched_getaffinity(0) == free
    topology.bind((10**6,))
    assert os.sched_getaffinity(0) == free
