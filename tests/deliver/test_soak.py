"""Weeks in a minute: hundreds of epochs with early exits, resumes and faults, and nothing grows.

RXRX_FAST_SOAK=5000 makes it that many epochs; 200 by default.
"""

import ctypes
import gc
import json
import os
import random
import subprocess
import sys
import threading

import psutil
import pytest
from loading import PLANS, POLICY, SUPPORT, assert_no_threads

import rxrx_fast as rx

EPOCHS = int(os.environ.get("RXRX_FAST_SOAK", 200))


def usage():
    """What a process can leak."""
    gc.collect()
    # What the C library keeps for later is not lost.
    ctypes.CDLL(None).malloc_trim(0)
    process = psutil.Process()
    return {
        "rss": process.memory_info().rss,
        "descriptors": process.num_fds(),
        "threads": threading.active_count(),
        "shared memory": len(os.listdir("/dev/shm")),
        "mappings": len(process.memory_maps(grouped=False)),
    }


class Boom(Exception):
    """What a training script dies of."""


def leave(rng, iterator, step):
    """Leave a loop at a random place in a random way; True if it is left."""
    if rng.random() > 0.03:
        return False
    way = rng.choice(["break", "close", "raise"])
    if way == "close":
        iterator.close()
    if way == "raise":
        raise Boom
    return True


def soak(root):
    """Random plans, threads, exits, resumes from JSON, faults skipped and raised; what was done, and what was in use
    after a quarter of it and at the end.
    """
    bad = 17
    os.truncate(rx.Catalog.read(root).files([bad])[0][1], 300)
    dataset = rx.Dataset(root, augment=POLICY, channels=(1, 2, 3))
    index, faulty = dataset.catalog.table.index.to_numpy(), dataset.catalog.table["site_id"].iat[bad]
    rng, done, started = random.Random(0), {"epochs": 0, "exits": 0, "resumes": 0, "raised": 0, "skipped": 0}, None
    loader = state = plan = None
    while done["epochs"] < EPOCHS:
        if done["epochs"] == EPOCHS // 4 and started is None:
            loader = None
            assert_no_threads()
            started = usage()
        if loader is None:
            plan = plan if state is not None else rng.choice(list(PLANS))
            skip = rng.random() < 0.7
            loader = rx.DataLoader(
                dataset,
                8,
                seed=9,
                num_threads=rng.randint(1, 3),
                prefetch_factor=rng.randint(1, 3),
                on_error="skip" if skip else "raise",
                **PLANS[plan],
            )
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
                done["resumes"] += 1
        before = loader.state_dict()
        iterator, left = iter(loader), False
        order = loader._order(loader.state_dict()["epoch"])
        try:
            for _, _labels, meta in iterator:
                step = loader.state_dict()["step"] - 1
                wanted, found = index[order[step]], meta["site_index"].numpy()
                assert ((wanted == found) | (wanted == index[bad])).all()
                assert index[bad] not in found
                if left := leave(rng, iterator, step):
                    break
        except Boom:
            left = True
        except rx.SiteError as error:
            assert error.site_id == faulty
            assert not skip
            done["raised"] += 1
            # The state from before the fault, taken up by a loader that skips.
            state, skip = loader.state_dict(), True
            loader = rx.DataLoader(dataset, 8, seed=9, on_error="skip", **PLANS[plan])
            loader.load_state_dict(state)
            continue
        done["epochs"] += 1
        done["exits"] += left
        done["skipped"] += len(loader.report()["faults"])
        assert loader.state_dict() != before
        if rng.random() < 0.4:
            state = loader.state_dict() if rng.random() < 0.7 else None
            iterator = loader = None
    iterator = loader = order = None
    assert_no_threads()
    ended = usage()
    return done, started, ended


@pytest.mark.slow(30)
@pytest.mark.timeout(600 + 10 * EPOCHS)
def test_hundreds_of_epochs_leave_nothing_behind(copy, stats):
    """Every delivered batch is the one that its order says, and threads, descriptors, shared memory and resident memory
    at the end are those of the start. In a process of its own, where nothing else comes and goes.
    """
    stats.save(copy / "rxrx_fast_stats.npz")
    script = "import json, sys, test_soak; print(json.dumps(test_soak.soak(sys.argv[1])))"
    run = subprocess.run(
        [sys.executable, "-c", script, str(copy)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), str(SUPPORT), *sys.path])},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    done, started, ended = json.loads(run.stdout.splitlines()[-1])
    assert min(done.values()) >= EPOCHS // 40, done
    assert ended["rss"] - started["rss"] < 24 * 2**20, (started, ended)
    assert ended["descriptors"] <= started["descriptors"] + 2
    assert ended["threads"] <= started["threads"]
    assert ended["shared memory"] <= started["shared memory"] + 2
    assert ended["mappings"] <= started["mappings"] + 60
