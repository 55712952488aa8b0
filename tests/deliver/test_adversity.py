"""What can happen to a machine while batches are made: nothing hangs, and one error names what it was."""

import logging
import os
import resource
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from loading import assert_no_threads, by_site, threads

import rxrx_fast as rx
from rxrx_fast.stores import file_io, files


@pytest.fixture
def raw(copy):
    """The copied data set, raw."""
    return rx.Dataset(copy, dtype="uint8")


def error_of(loader, kind=Exception):
    """The one error that ends an epoch."""
    with pytest.raises(kind) as caught:
        for _ in loader:
            pass
    return caught.value


def run_script(script):
    """A script in a process of its own, within a minute."""
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)


# Files that change under the reader ----------------------------------------------------------------------------------


@pytest.fixture
def meanwhile(monkeypatch, raw):
    """Set ``meanwhile.happens``: called with the victim's path when its first kilobyte has been read."""
    victim = raw.catalog.files([13])[0][4]

    class Meanwhile:
        path, happens = victim, None

    inode, readv = os.stat(victim).st_ino, os.readv

    def slow(descriptor, buffers):
        if os.fstat(descriptor).st_ino != inode or Meanwhile.happens is None:
            return readv(descriptor, buffers)
        done = readv(descriptor, [buffers[0][:1000]])
        happens, Meanwhile.happens = Meanwhile.happens, None
        happens(victim)
        return done

    monkeypatch.setattr(file_io.os, "readv", slow)
    return Meanwhile


def test_a_file_replaced_while_it_is_read_is_read_whole(raw, meanwhile, tmp_path):
    """A new file under the same name, as rsync and every careful writer does it: the old bytes, complete."""
    expected = raw[13][0]

    def replace(path):
        (tmp_path / "new").write_bytes(b"something else")
        os.replace(tmp_path / "new", path)

    meanwhile.happens = replace
    found = by_site(rx.DataLoader(raw, 6))
    assert meanwhile.happens is None
    assert torch.equal(found[raw.catalog.table.index[13]], expected)
    assert "empty" in str(error_of(rx.DataLoader(raw, 6))) or "PNG" in str(error_of(rx.DataLoader(raw, 6)))


@pytest.mark.parametrize("how", ["cut short", "overwritten"])
def test_a_file_changed_in_place_while_it_is_read_is_a_fault(raw, meanwhile, how):
    """Half of the old bytes and none or half of the new: the checksums say so."""

    def change(path):
        with open(path, "r+b") as file:
            if how == "cut short":
                file.truncate(1000)
            else:
                file.seek(1000)
                file.write(bytes(500))

    meanwhile.happens = change
    error = error_of(rx.DataLoader(raw, 6), rx.SiteError)
    assert (error.path, error.site_id) == (meanwhile.path, raw.catalog.table["site_id"].iat[13])


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_mount_that_vanishes_ends_the_epoch(raw, copy, tmp_path, on_error, left):
    """At once, by its name, and without a hundred lines of skipped sites."""
    loader = rx.DataLoader(raw, 2, on_error=on_error, prefetch_factor=1)
    with pytest.raises(rx.DataError, match="is gone or empty: is its file system still mounted") as caught:
        for step, _ in enumerate(loader):
            if step == 1:
                copy.rename(tmp_path / "elsewhere")
                if left == "an empty folder":
                    copy.mkdir()
    assert str(copy) in str(caught.value)
    assert step >= 1
    assert loader.report()["faults"] == []
    assert_no_threads()


def test_a_folder_that_may_not_be_read_is_a_fault(raw, stats):
    """Permission denied, said of the site and file; also where the tests run as the superuser."""
    folder = os.path.dirname(raw.catalog.files([13])[0][4])
    script = f"""
    import os, sys
    import rxrx_fast as rx
    dataset = rx.Dataset({str(raw.catalog.root)!r}, dtype="uint8")
    loader = rx.DataLoader(dataset, 6)
    os.chmod({folder!r}, 0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        for _ in loader: pass
    except rx.SiteError as error:
        print(error)
    """
    # The temporary folder of the tests is for its owner alone: the way to the data must be open to others.
    opened = [parent for parent in Path(raw.catalog.root).parents if not os.stat(parent).st_mode & 0o001]
    for parent in opened:
        os.chmod(parent, os.stat(parent).st_mode | 0o011)
    try:
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120
        )
    finally:
        os.chmod(folder, 0o755)
        for parent in opened:
            os.chmod(parent, os.stat(parent).st_mode & ~0o011)
    assert run.stdout.startswith("site ") and run.stdout.strip().endswith("(Permission denied)"), run.stderr
    assert folder in run.stdout


# A file system that no longer answers --------------------------------------------------------------------------------


@pytest.fixture
def silent(raw):
    """A file that answers to nobody, as on a network that is gone: reading it waits until someone writes to it."""
    path = raw.catalog.files([13])[0][4]
    os.unlink(path)
    os.mkfifo(path)
    yield path
    while threads():
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            time.sleep(0.01)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_read_that_never_ends_is_said(raw, silent, on_error):
    """After ``timeout`` seconds an error names the site and the file; with skip too, for the thread is lost."""
    loader = rx.DataLoader(raw, 6, on_error=on_error, timeout=3, num_threads=2)
    start, batches = time.monotonic(), 0
    with pytest.raises(rx.StalledError, match="no batch came within timeout=3 s") as caught:
        for _ in loader:
            batches += 1
    # Those that DALI holds go with the one that does not come; the state knows what was delivered.
    assert time.monotonic() - start < 30
    assert batches <= 2
    assert loader.state_dict()["step"] == batches
    site = raw.catalog.table["site_id"].iat[13]
    assert f"it waits for site {site} in {os.path.dirname(silent)};" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)


def test_a_process_with_a_lost_thread_ends(raw, silent):
    """A script that dies of a stall is gone within seconds, with status 1, although a thread is still reading."""
    script = f"""
    import rxrx_fast as rx
    for _ in rx.DataLoader(rx.Dataset({str(raw.catalog.root)!r}, dtype="uint8"), 6, timeout=0.5): pass
    """
    run = run_script(script)
    assert run.returncode == 1
    assert "rxrx_fast.errors.StalledError: no batch came within" in run.stderr


def test_a_slow_consumer_is_no_stall(raw):
    """The clock runs while a batch is waited for, not while the model works; 0 waits for ever."""
    for timeout in (0.3, 0):
        seen = 0
        for _, labels, _ in rx.DataLoader(raw, 24, timeout=timeout):
            seen += len(labels)
            time.sleep(0.5)
        assert seen == len(raw)
    with pytest.raises(rx.UsageError, match="timeout=-1"):
        rx.DataLoader(raw, timeout=-1)


# Threads, DALI, memory, disk -----------------------------------------------------------------------------------------


def test_an_error_in_the_background_is_raised_once(raw, monkeypatch):
    """Whatever it is, in the loop, after the batches before it; then the loader starts anew."""
    parameters, calls = raw.parameters, []

    def fails(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError("in the background")
        return parameters(*arguments)

    monkeypatch.setattr(raw, "parameters", fails)
    loader, seen = rx.DataLoader(raw, 6), 0
    with pytest.raises(ZeroDivisionError, match="in the background"):
        for _ in loader:
            seen += 1
    assert seen == 2
    assert_no_threads()
    assert len(list(loader)) == 8


def test_a_dead_background_thread_is_noticed(raw, monkeypatch):
    """A thread that ends without a word ends the loop with an error, at once."""
    monkeypatch.setattr("rxrx_fast.deliver.producer.Producer.run", lambda self: self._pool.shutdown())
    start = time.monotonic()
    assert "ended without a word" in str(error_of(rx.DataLoader(raw, 6), RuntimeError))
    assert time.monotonic() - start < 10


def test_a_dead_reading_thread_is_noticed(raw, monkeypatch):
    """An exception that would end a thread, in one of those that read, ends the loop with that exception."""
    take, main = files.FileStore._bytes, threading.main_thread()

    def dies(self, position, path):
        if position == 13 and threading.current_thread() is not main:
            raise SystemError("the thread is dead")
        return take(self, position, path)

    monkeypatch.setattr(files.FileStore, "_bytes", dies)
    assert "the thread is dead" in str(error_of(rx.DataLoader(raw, 6), SystemError))
    assert_no_threads()


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_fault_of_dalis_is_one_line(raw, monkeypatch, decoder, on_error):
    """An error of DALI's own, with every file in order, is not laid at a file's door, nor tried again for ever."""
    from rxrx_fast.decode.dali_spine import DaliSpine

    run, calls = DaliSpine._run, []

    def fails(self):
        calls.append(1)
        if len(calls) >= 3:
            raise RuntimeError("Critical error in pipeline:\nError in CPU operator\nassert on nothing failed\n")
        return run(self)

    monkeypatch.setattr(DaliSpine, "_run", fails)
    error = error_of(rx.DataLoader(raw, 6, on_error=on_error), rx.DataError)
    assert str(error) == "DALI stopped and no file of the batch is at fault: assert on nothing failed"
    assert_no_threads()


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_out_of_memory_is_said_with_the_batch(raw, monkeypatch, kind):
    """On the host or the GPU: a MemoryError that says what was being made and what to take less of."""
    loader = rx.DataLoader(raw, 6)
    take, calls = loader._outputs.take, []

    def fails(shape, dtype):
        calls.append(1)
        if len(calls) == 3:
            raise kind("no memory left")
        return take(shape, dtype)

    monkeypatch.setattr(loader._outputs, "take", fails)
    error = error_of(loader, MemoryError)
    assert "a batch of 6 x 6 x 64 x 64 uint8" in str(error)
    assert "smaller batch_size" in str(error)
    assert "no memory left" in str(error)
    assert isinstance(error.__cause__, kind)
    assert_no_threads()
    monkeypatch.undo()
    assert len(list(loader)) == 8


def test_a_full_disk_while_statistics_are_saved(copy, stats):
    """One line that names the file; an older file stays whole, and no half of one is left behind."""
    path = copy / "rxrx_fast_stats.npz"
    stats.save(path)
    before, limit = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(rx.DataError, match="can't be saved") as caught:
            stats.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert sorted(p.name for p in copy.glob("*npz*")) == [path.name]
    assert len(rx.PlateStats.load(path)) == len(stats)


def test_skipped_sites_are_logged_in_one_line_each(raw, caplog):
    """The logger "rxrx_fast", level WARNING: site, file and reason, for each."""
    victims = [raw.catalog.files([i])[0][0] for i in (2, 30)]
    for path in victims:
        os.unlink(path)
    loader = rx.DataLoader(raw, 6, on_error="skip")
    with caplog.at_level(logging.WARNING, logger="rxrx_fast"):
        assert sum(len(labels) for _, labels, _ in loader) == len(raw)
    faults = loader.report()["faults"]
    assert [fault["path"] for fault in faults] == victims
    assert [record.getMessage() for record in caplog.records] == [
        f"site {fault['site_id']}: {fault['path']}: the file is missing; another site takes its place"
        for fault in faults
    ]
    assert np.array([record.levelno == logging.WARNING for record in caplog.records]).all()
