"""A run that dies anywhere goes on as if nothing had happened: the same batches, with the same pixels."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from loading import PLANS, POLICY, SUPPORT, assert_no_threads, together, told

import rxrx_fast as rx


def ranks(dataset, world, batch=12, **arguments):
    return [rx.DataLoader(dataset, batch // world, rank=rank, world_size=world, **arguments) for rank in range(world)]


def run_to(loaders, steps):
    """Some global batches, and the state of the first rank then."""
    iterators = [iter(loader) for loader in loaders]
    seen = [sum((told(next(iterator)) for iterator in iterators), []) for _ in range(steps)]
    states = [loader.state_dict() for loader in loaders]
    assert all(state == states[0] for state in states)
    for iterator in iterators:
        iterator.close()
    return seen, json.loads(json.dumps(states[0]))


@pytest.mark.parametrize("plan", PLANS)
def test_a_state_taken_at_any_step_goes_on_exactly(dataset, plan):
    """Whatever the step, with another number of ranks and threads: the rest of the epoch and the next, bit for bit."""
    arguments = {"seed": 8, **PLANS[plan]}
    (whole,) = ranks(dataset, 1, **arguments)
    whole.set_epoch(3)
    expected = [told(batch) for _ in range(2) for batch in whole]
    length = len(whole)
    for step in range(length + 1):
        world, other = ((1, 2), (2, 3), (3, 1))[step % 3]
        first = ranks(dataset, world, **arguments)
        for loader in first:
            loader.set_epoch(3)
        seen, state = run_to(first, step)
        assert seen == expected[:step]
        assert (state["epoch"], state["step"]) == (3, step)
        second = ranks(dataset, other, num_threads=1 + step % 2, prefetch_factor=1 + step, **arguments)
        for loader in second:
            loader.load_state_dict(state)
        assert together(second) + together(second) == expected[step:]


def test_batches_that_were_made_and_not_delivered_come_again(dataset):
    """A state taken while the queue is full has only what was delivered."""
    loader = rx.DataLoader(dataset, batch_size=4, shuffle=True, prefetch_factor=4)
    iterator = iter(loader)
    next(iterator)
    end = time.monotonic() + 20
    while iterator._queue.qsize() < 4 and time.monotonic() < end:
        time.sleep(0.01)
    assert iterator._queue.qsize() == 4
    state = loader.state_dict()
    expected = [told(batch) for batch in iterator]
    assert state["step"] == 1
    assert len(expected) == 11
    other = rx.DataLoader(dataset, batch_size=4, shuffle=True)
    other.load_state_dict(state)
    assert [told(batch) for batch in other] == expected


def test_a_state_is_small_and_plain(dataset):
    """Integers and strings, less than 1 KB of JSON, also for the longest plan and with a sampler; it survives JSON."""
    for arguments in ({"group_by": "experiment", "whole_groups": True, "shuffle": True}, {"sampler": range(40)}):
        loader = rx.DataLoader(dataset, batch_size=4, seed=2**63 - 1, **arguments)
        next(iter(loader))
        text = json.dumps(loader.state_dict())
        assert len(text) < 1024
        assert json.loads(text) == loader.state_dict()
        assert {type(value) for value in loader.state_dict().values()} == {int, str}


def test_a_state_between_epochs_names_the_next(dataset):
    """After an epoch's end the state is the beginning of the next one, and goes on there."""
    loader = rx.DataLoader(dataset, batch_size=16, shuffle=True)
    assert len(list(loader)) == 3
    state = loader.state_dict()
    assert (state["epoch"], state["step"]) == (1, 0)
    other = rx.DataLoader(dataset, batch_size=16, shuffle=True)
    other.load_state_dict(state)
    assert [told(b) for b in other] == [told(b) for b in loader]


def test_a_loop_that_sets_the_epoch_resumes_as_it_is(dataset):
    """set_epoch with the epoch of a loaded state keeps its place, once; any other epoch starts from its beginning."""
    loader = rx.DataLoader(dataset, batch_size=16, shuffle=True)
    loader.set_epoch(4)
    expected = [told(batch) for batch in loader]
    loader.set_epoch(4)
    next(iter(loader))
    state = loader.state_dict()
    for epoch, start in ((4, 1), (5, 0)):
        other = rx.DataLoader(dataset, batch_size=16, shuffle=True)
        other.load_state_dict(state)
        other.set_epoch(epoch)
        assert len([told(batch) for batch in other]) == 3 - start
        other.set_epoch(4)
        assert [told(batch) for batch in other] == expected


def test_an_iterator_left_behind_does_not_move_the_state(dataset):
    """Loading a state ends the live iterator, and set_epoch parts from it: neither counts for the new place."""
    loader = rx.DataLoader(dataset, batch_size=4)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    next(iterator)
    loader.load_state_dict(state)
    with pytest.raises(RuntimeError, match="another iterator"):
        next(iterator)
    assert loader.state_dict() == state
    iterator = iter(loader)
    loader.set_epoch(7)
    next(iterator)
    assert (loader.state_dict()["epoch"], loader.state_dict()["step"]) == (7, 0)


def test_a_state_of_another_run_is_refused(dataset, stats):
    """Other sites, seed, global batch or order: one line with each that differs. Threads and the like may differ."""
    state = rx.DataLoader(dataset, 8, True, seed=3, rank=0, world_size=2).state_dict()
    fewer = rx.Dataset(dataset.catalog.take(range(47)), stats=stats, augment=POLICY)
    swapped = rx.Dataset(dataset.catalog.take([1, 0, *range(2, 48)]), stats=stats, augment=POLICY)
    for data, arguments, message in (
        (fewer, {}, "number of samples 48 there and 47 here"),
        (swapped, {}, "fingerprint of the sites '[0-9a-f]{16}' there"),
        (dataset, {"seed": 4}, "seed 3 there and 4 here"),
        (dataset, {"batch_size": 8}, r"global batch \(batch_size x world_size\) 16 there and 8 here"),
        (dataset, {"shuffle": False}, "order 'shuffle' there and 'as they are' here"),
        (dataset, {"group_by": "plate"}, "order 'shuffle' there and 'shuffle group_by=plate' here"),
    ):
        with pytest.raises(rx.UsageError, match=message) as caught:
            rx.DataLoader(data, **{"batch_size": 16, "shuffle": True, "seed": 3, **arguments}).load_state_dict(state)
        assert "\n" not in str(caught.value)
    both = rx.DataLoader(dataset, 4, True, seed=5)
    with pytest.raises(rx.UsageError, match="seed 3 there and 5 here; global batch"):
        both.load_state_dict(state)
    with pytest.raises(rx.UsageError, match="version of the order 0 there and 1 here"):
        rx.DataLoader(dataset, 16, True, seed=3).load_state_dict({**state, "version": 0})
    for nonsense, message in (({"epoch": 1}, "it lacks data, global_batch"), ([1], "list")):
        with pytest.raises(rx.UsageError, match=f"not a state of rx.DataLoader: {message}"):
            both.load_state_dict(nonsense)
    raw = rx.Dataset(dataset.catalog, dtype="uint8", views=2)
    rx.DataLoader(raw, 16, True, seed=3, num_threads=3, on_error="skip", prefetch_factor=5).load_state_dict(state)


@pytest.mark.gpu
def test_a_run_goes_on_on_another_device(dataset):
    """Begun on the CPU and resumed on a GPU, and the other way round: the same pixels."""
    expected = [told(batch) for batch in rx.DataLoader(dataset, 12, True, device="cpu")]
    for first, second in (("cpu", "cuda"), ("cuda", "cpu")):
        begun = rx.DataLoader(dataset, 12, True, device=first)
        iterator = iter(begun)
        images, _, meta = next(iterator)
        seen = [told((images.cpu(), None, meta))]
        resumed = rx.DataLoader(dataset, 12, True, device=second)
        resumed.load_state_dict(begun.state_dict())
        assert seen + [told((images.cpu(), None, meta)) for images, _, meta in resumed] == expected


# Samplers ------------------------------------------------------------------------------------------------------------


def test_samplers_without_a_seed_are_drawn_under_the_loaders(dataset):
    """Torch's RandomSampler and WeightedRandomSampler: a function of (seed, epoch), resumed exactly, and torch's own
    generator goes on as if nothing had been drawn.
    """
    samplers = (
        lambda: {"sampler": torch.utils.data.RandomSampler(dataset)},
        lambda: {"sampler": torch.utils.data.WeightedRandomSampler([1.0, 5.0] * 24, 40)},
        lambda: {
            "batch_sampler": torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(dataset), 10, drop_last=True)
        },
    )
    for build in samplers:
        torch.manual_seed(1)
        before = torch.get_rng_state()
        whole = rx.DataLoader(dataset, 10, seed=4, **build())
        expected = [[told(batch) for batch in whole] for _ in range(2)]
        assert torch.equal(torch.get_rng_state(), before)
        assert expected[0] != expected[1]
        torch.manual_seed(2)
        first, second = (rx.DataLoader(dataset, 10, seed=4, **build()) for _ in range(2))
        list(first)
        seen, state = run_to([first], 2)
        second.load_state_dict(state)
        assert seen + [told(batch) for batch in second] == expected[1]


def test_a_sampler_that_gives_other_batches_is_refused(dataset):
    """A generator of the sampler's own that is not where it was: an error instead of sites seen twice."""

    def build():
        generator = torch.Generator().manual_seed(3)
        return rx.DataLoader(dataset, 10, sampler=torch.utils.data.RandomSampler(dataset, generator=generator))

    first = build()
    list(first)
    _, state = run_to([first], 2)
    second = build()
    second.load_state_dict(state)
    with pytest.raises(rx.UsageError, match="other batches than it did in epoch 1"):
        iter(second)
    # In the first epoch it is where it was, and between epochs there is nothing to check.
    _, state = run_to([build()], 2)
    third = build()
    third.load_state_dict(state)
    assert len(list(third)) == 3
    other = build()
    other.load_state_dict(third.state_dict())
    assert len(list(other)) == 5


def test_torchs_distributed_sampler_goes_on_with_other_ranks(dataset):
    """It deals out in turn, so the rest of the epoch is the same on other ranks of the same global batch."""

    def build(world):
        return [
            rx.DataLoader(
                dataset,
                12 // world,
                rank=rank,
                world_size=world,
                sampler=torch.utils.data.DistributedSampler(dataset, world, rank, seed=6),
            )
            for rank in range(world)
        ]

    def sites(loaders):
        return [sorted(found) for found in together(loaders)]

    whole, first, second = build(1), build(2), build(3)
    for loader in (*whole, *first, *second):
        loader.set_epoch(2)
    expected = sites(whole)
    iterators = [iter(loader) for loader in first]
    seen = [sorted(sum((told(next(iterator)) for iterator in iterators), [])) for _ in range(2)]
    for loader in second:
        loader.load_state_dict(first[0].state_dict())
        loader.set_epoch(2)
    assert seen + sites(second) == expected


# Killed --------------------------------------------------------------------------------------------------------------

SCRIPT = """
import json, os, sys
sys.path.insert(0, sys.argv[4])
from loading import POLICY, told
import rxrx_fast as rx

root, out, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
dataset = rx.Dataset(root, augment=POLICY)
loader = rx.DataLoader(dataset, 6, shuffle=True, seed=5, group_by="plate", num_threads=threads, on_error="skip")
seen = []
if os.path.exists(out):
    saved = json.load(open(out))
    loader.load_state_dict(saved["loader"])
    seen = saved["seen"]
for epoch in range(loader.state_dict()["epoch"], 3):
    loader.set_epoch(epoch)
    for batch in loader:
        # The model's checkpoint and the loader's state in one file that is replaced whole, as a training script should.
        seen.append(told(batch))
        json.dump({"loader": loader.state_dict(), "seen": seen}, open(out + ".part", "w"))
        os.replace(out + ".part", out)
        print(len(seen), flush=True)
"""


@pytest.mark.slow(8)
def test_killed_again_and_again_it_sees_what_it_would_have_seen(copy, stats, tmp_path):
    """Kill -9 at random steps of three epochs, with a bad file in the data and another number of threads each time: all
    batches, stand-ins and pixels are those of the uninterrupted run.
    """
    stats.save(copy / "rxrx_fast_stats.npz")
    dataset = rx.Dataset(copy, augment=POLICY)
    for position in (5, 6, 29):
        os.truncate(dataset.catalog.files([position])[0][2], 300)
    whole = rx.DataLoader(dataset, 6, shuffle=True, seed=5, group_by="plate", on_error="skip")
    expected = [told(batch) for _ in range(3) for batch in whole]
    assert len(expected) == 24
    assert whole.scalars()["faults"] >= 9
    out, kills = tmp_path / "checkpoint.json", [3, 9, 8] if os.environ.get("RXRX_FAST_LONG") else [9]
    script, here = textwrap.dedent(SCRIPT), str(SUPPORT)
    for threads, lines in enumerate([*kills, None], 1):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(copy), str(out), str(threads), here],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if lines is None:
                _, err = process.communicate(timeout=120)
                assert process.returncode == 0, err
            else:
                for _ in range(lines):
                    assert process.stdout.readline()
                time.sleep(random.Random(threads).uniform(0, 0.02))
                process.send_signal(signal.SIGKILL)
                assert process.wait(timeout=60) == -signal.SIGKILL
        finally:
            process.kill()
            process.communicate()
    assert json.loads(out.read_text())["seen"] == expected
    assert_no_threads()
