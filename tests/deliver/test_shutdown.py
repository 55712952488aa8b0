"""Every way out of a loop is clean: early, by an exception, by Ctrl-C, by garbage collection, or never."""

import gc
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest
import torch
from loading import POLICY, assert_no_threads, by_site, interruptible, threads

import rxrx_fast as rx


def test_leaving_early_ends_the_threads(dataset):
    """break, an exception in the loop, and a dropped iterator leave no thread behind; the loader goes on working."""
    loader = rx.DataLoader(dataset, batch_size=4, shuffle=True)
    for _ in loader:
        assert threads()
        break
    gc.collect()
    assert_no_threads()
    with pytest.raises(ZeroDivisionError):
        for _ in loader:
            1 / 0
    gc.collect()
    assert_no_threads()
    iterator = iter(loader)
    next(iterator)
    iterator.close()
    assert_no_threads()
    with pytest.raises(StopIteration):
        next(iterator)
    del loader, iterator
    assert sum(len(labels) for _, labels, _ in rx.DataLoader(dataset, batch_size=4)) == len(dataset)
    assert_no_threads()


def test_a_new_iterator_ends_the_one_before(dataset):
    """Only one epoch of a loader streams at a time, and the older one does not end as if it were complete."""
    loader = rx.DataLoader(dataset, batch_size=4)
    first = iter(loader)
    next(first)
    second = iter(loader)
    with pytest.raises(RuntimeError, match="another iterator"):
        next(first)
    assert sum(len(labels) for _, labels, _ in second) == len(dataset)


def test_two_loaders_side_by_side(rxrx_root, dataset):
    """Two loaders in step deliver what each delivers alone."""
    raw = rx.Dataset(rxrx_root, dtype="uint8")
    alone = by_site(rx.DataLoader(dataset, batch_size=6, shuffle=True)), by_site(rx.DataLoader(raw, batch_size=6))
    together = {}, {}
    for batches in zip(
        rx.DataLoader(dataset, batch_size=6, shuffle=True), rx.DataLoader(raw, batch_size=6), strict=True
    ):
        for found, (images, _, meta) in zip(together, batches):
            found.update({site: images[i].clone() for i, site in enumerate(meta["site_index"].tolist())})
    for found, expected in zip(together, alone):
        assert len(expected) == len(dataset)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[s], expected[s]) for s in expected)


def test_a_kept_batch_is_never_written_again(dataset):
    """Buffers are recycled only when every view of them is gone: kept batches and slices keep their pixels."""
    loader = rx.DataLoader(dataset, batch_size=4, shuffle=True)
    kept, slices = [], []
    for _ in range(3):
        for images, _, _ in loader:
            kept.append((images, images.clone()))
            slices.append((images[1, 2], images[1, 2].clone()))
            kept = kept[-5:]
    assert len(slices) == 3 * len(loader)
    assert all(torch.equal(a, b) for a, b in kept + slices)


def test_buffers_are_used_again(dataset):
    """A consumer that drops its batches sees few addresses, not a fresh one a batch."""
    loader = rx.DataLoader(dataset, batch_size=4)
    addresses = set()
    for _ in range(4):
        for images, _, _ in loader:
            addresses.add(images.data_ptr())
    assert 1 <= len(addresses) < 4 * len(loader) / 2


@pytest.mark.slow(18)
def test_memory_stays_flat(rxrx_root, stats):
    """2,000 batches over many epochs: resident memory, threads and open files at the end are those of the start."""
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=POLICY, channels=(1, 2))
    process = psutil.Process()

    def stream(batches):
        loader = rx.DataLoader(dataset, batch_size=2, shuffle=True)
        done = 0
        while done < batches:
            for _ in loader:
                done += 1
        return done

    stream(400)
    gc.collect()
    before = process.memory_info().rss, process.num_fds()
    assert stream(2000) >= 2000
    assert_no_threads()
    gc.collect()
    after = process.memory_info().rss, process.num_fds()
    assert after[0] - before[0] < 24 * 2**20
    assert after[1] <= before[1] + 2


def run_script(root, body, **options):
    script = textwrap.dedent(
        """
        import sys, warnings
        import rxrx_fast as rx
        dataset = rx.Dataset(sys.argv[1], dtype="uint8")
        """
    ) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-u", "-c", script, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
        **options,
    )


def test_ctrl_c_ends_the_process(rxrx_root):
    """SIGINT in the middle of an epoch: KeyboardInterrupt in the loop, and a clean exit within seconds."""
    process = run_script(
        rxrx_root,
        """
        loader = rx.DataLoader(dataset, batch_size=2)
        try:
            while True:
                for k, batch in enumerate(loader):
                    print("batch", flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """,
    )
    try:
        for _ in range(3):
            assert process.stdout.readline() == "batch\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert out.strip().endswith("interrupted")
    assert "Traceback" not in err


def test_the_interpreter_ends_with_a_loader_open(rxrx_root):
    """Leaving a loop by the end of the script neither hangs nor complains."""
    process = run_script(
        rxrx_root, "iterator = iter(rx.DataLoader(dataset, batch_size=2)); next(iterator); print('over')"
    )
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    # On a busy machine loading the kernels can take as long as compiling them, and is then taken for it.
    complaints = [line for line in err.splitlines() if not line.startswith("compiling the kernels")]
    assert (process.returncode, out, complaints) == (0, "over\n", [])


def test_a_forked_process_is_told(rxrx_root):
    """An iterator taken into a fork says so, and does not hang."""
    process = run_script(
        rxrx_root,
        """
        import os
        warnings.simplefilter("ignore")
        iterator = iter(rx.DataLoader(dataset, batch_size=2))
        next(iterator)
        child = os.fork()
        if child == 0:
            try:
                next(iterator)
            except RuntimeError as error:
                os.write(1, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        """,
    )
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "forked process" in out, err
