"""The same run on any number of ranks: the same global batches, with the same pixels, in the same sequence."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from loading import PLANS, POLICY, SUPPORT, together, told

import rxrx_fast as rx


@pytest.fixture(scope="module")
def uneven(rxrx_root, stats):
    """44 sites: by 24, a short last batch that does not divide by 3 or 8."""
    return rx.Dataset(rx.Catalog.read(rxrx_root).take(range(44)), stats=stats, augment=POLICY)


def ranks(dataset, world, batch=24, **arguments):
    return [
        rx.DataLoader(dataset, batch // world, rank=rank, world_size=world, num_threads=1 + rank % 2, **arguments)
        for rank in range(world)
    ]


@pytest.mark.parametrize("plan", PLANS)
def test_any_number_of_ranks_sees_the_same_batches(uneven, plan):
    """1, 2, 3, 4 and 8 ranks: the union of each global batch, its sequence and its pixels are those of one rank."""
    arguments = {"seed": 5, **PLANS[plan]}
    # Whole labels on each rank: 48 / 8 is a multiple of 2.
    batch = 16 if plan == "labels x sites" else 24
    (expected,) = (together(ranks(uneven, 1, batch, **arguments)),)
    sites = [site for found in expected for site, _ in found]
    assert len(sites) >= batch
    if plan in ("plain", "in order", "grouped", "whole groups"):
        assert sorted(sites) == sorted(uneven.catalog.table.index)
    for world in (2, 4, 8) if plan == "labels x sites" else (2, 3, 4, 8):
        assert together(ranks(uneven, world, batch, **arguments)) == expected, world


def test_padding_and_dropping_are_said(uneven):
    """44 sites, 8 ranks of 3: with drop_last one whole step; else a second in which meta marks the repeated ones."""
    loaders = ranks(uneven, 8)
    marks = [[meta["repeated"].tolist() for _, _, meta in loader] for loader in loaders]
    assert all(len(steps) == 2 and not any(steps[0]) and len(steps[1]) == 3 for steps in marks)
    assert sum(sum(steps[1]) for steps in marks) == 8 * 3 - 20
    dropped = ranks(uneven, 8, drop_last=True)
    assert [len(loader) for loader in dropped] == [1] * 8
    assert sum(int(meta["repeated"].sum()) for loader in dropped for _, _, meta in loader) == 0
    assert "repeated" not in next(iter(ranks(uneven, 1)[0]))[2]


def test_skipped_sites_cost_no_step(copy):
    """With bad files on some ranks' share, all ranks take as many steps, with as many samples, as without."""
    dataset = rx.Dataset(copy, dtype="uint8")
    whole = [[len(labels) for _, labels, _ in loader] for loader in ranks(dataset, 4, shuffle=True)]
    for position in (0, 1, 2, 30):
        os.unlink(dataset.catalog.files([position])[0][3])
    loaders = ranks(dataset, 4, shuffle=True, on_error="skip")
    assert [[len(labels) for _, labels, _ in loader] for loader in loaders] == whole
    assert sum(len(loader.report()["faults"]) for loader in loaders) >= 4


def test_a_group_that_comes_after_the_loader_is_met(uneven, monkeypatch):
    """Trainers make the process group when they start to fit: the loader takes its rank then, but not in mid-run, and
    not where the ranks were given.
    """
    loader, told_ranks = rx.DataLoader(uneven, 12), rx.DataLoader(uneven, 12, rank=0, world_size=1)
    begun = rx.DataLoader(uneven, 12)
    next(iter(begun))
    assert len(loader) == 4
    for name, value in (("is_initialized", True), ("get_rank", 1), ("get_world_size", 2)):
        monkeypatch.setattr(f"torch.distributed.{name}", lambda value=value: value)
    assert len(loader) == 2
    assert len(told_ranks) == 4
    assert (loader.rank, loader.world_size) == (1, 2)
    assert loader.state_dict()["global_batch"] == 24
    second = rx.DataLoader(uneven, 12, rank=1, world_size=2)
    assert [told(batch) for batch in loader] == [told(batch) for batch in second]
    with pytest.raises(rx.UsageError, match="this rank 1 of 2, and the loader began as rank 0 of 1"):
        iter(begun)


SCRIPT = """
import json, os, signal, sys
import torch, torch.distributed as dist
sys.path.insert(0, sys.argv[4])
from loading import POLICY, told
import rxrx_fast as rx

root, out, crash_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
dataset = rx.Dataset(rx.Catalog.read(root).take(range(44)), stats=os.path.join(root, "stats.npz"), augment=POLICY)
loader = rx.DataLoader(dataset, 12 // world, shuffle=True, seed=5)
if os.path.exists(f"{out}/state.json"):
    loader.load_state_dict(json.load(open(f"{out}/state.json")))
start = loader.state_dict()["epoch"]
steps = 0
for epoch in range(start, 2):
    loader.set_epoch(epoch)
    for batch in loader:
        # A collective operation a step: ranks that take different numbers of steps would hang here.
        count = torch.tensor([len(batch[1])])
        dist.all_reduce(count)
        state = loader.state_dict()
        with open(f"{out}/{world}-{rank}.jsonl", "a") as log:
            print(json.dumps([epoch, state["step"], told(batch)]), file=log)
        if rank == 0:
            json.dump(state, open(f"{out}/state.part", "w"))
            os.replace(f"{out}/state.part", f"{out}/state.json")
        dist.barrier()
        steps += 1
        if steps == crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
dist.destroy_process_group()
"""


@pytest.mark.slow(15)
def test_a_torchrun_killed_on_two_ranks_goes_on_with_three(rxrx_root, stats, tmp_path):
    """Real processes under torchrun and gloo: killed -9 in epoch 0, resumed on another number of ranks, and together
    the two runs are the uninterrupted one, sample by sample.
    """
    root, out = tmp_path / "data", tmp_path / "out"
    out.mkdir()
    root.symlink_to(rxrx_root)
    stats.save(tmp_path / "stats.npz")
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT).replace('os.path.join(root, "stats.npz")', repr(f"{tmp_path}/stats.npz")))
    worlds = ((2, 2), (3, 0)) if not os.environ.get("RXRX_FAST_LONG") else ((2, 1), (3, 1), (4, 1), (1, 1), (6, 0))
    for world, crash_at in worlds:
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                f"--nproc_per_node={world}",
                str(script),
                str(root),
                str(out),
                str(crash_at),
                str(SUPPORT),
            ],
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert (run.returncode == 0) == (crash_at == 0), run.stderr[-2000:]
    found = {}
    for world, _ in worlds:
        for rank in range(world):
            for line in (out / f"{world}-{rank}.jsonl").read_text().splitlines():
                epoch, step, samples = json.loads(line)
                found.setdefault((epoch, step), []).extend(samples)
    dataset = rx.Dataset(rx.Catalog.read(rxrx_root).take(range(44)), stats=stats, augment=POLICY)
    loader = rx.DataLoader(dataset, 12, shuffle=True, seed=5)
    expected = {(epoch, k + 1): told(batch) for epoch in range(2) for k, batch in enumerate(loader)}
    assert found == expected
    assert len(expected) == 8
