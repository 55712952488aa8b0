"""The pool of threads: as the standard library's, and nothing stays behind in it."""

import gc
import threading
import time
import weakref

import pytest
from loading import assert_no_threads

from rxrx_fast.runtime.threads import Pool


@pytest.fixture
def pool():
    """Two threads."""
    pool = Pool(2, "rxrx_fast")
    yield pool
    pool.shutdown()
    assert_no_threads()


def test_results_come_in_the_order_asked_for(pool):
    """Map keeps the order, whichever thread is faster; named arguments arrive."""
    waits = [0.05, 0.0, 0.02, 0.0]
    assert list(pool.map(lambda s: (time.sleep(s), s)[1], waits)) == waits
    assert pool.submit(int, "ff", base=16).result() == 255


def test_errors_come_with_the_result_and_the_thread_lives_on(pool):
    """Any exception is the future's, also one that would end a thread."""
    for kind in (ValueError, SystemExit):

        def fails(kind=kind):
            raise kind("no")

        with pytest.raises(kind, match="no"):
            pool.submit(fails).result()
    assert sum(pool.map(abs, range(-10, 0))) == 55


def test_nothing_of_a_task_stays_in_the_pool(pool):
    """Arguments, results and errors are free as soon as the caller drops them, without the garbage collector."""

    class Batch:
        pass

    def fails(batch):
        raise ValueError

    gc.disable()
    try:
        for function in (id, fails):
            batch = Batch()
            seen = weakref.ref(batch)
            future = pool.submit(function, batch)
            future.exception()
            # The thread lets go after the result is out.
            del batch, future
            end = time.monotonic() + 5
            while seen() is not None and time.monotonic() < end:
                time.sleep(0.001)
            assert seen() is None, function
    finally:
        gc.enable()


def test_shutdown_cancels_what_has_not_begun():
    """Tasks in work are finished, waiting ones are cancelled, further ones refused, and the threads end."""
    pool, begun, go = Pool(1, "rxrx_fast"), threading.Event(), threading.Event()
    working = pool.submit(lambda: (begun.set(), go.wait(10)))
    waiting = pool.submit(abs, -1)
    assert begun.wait(10)
    pool.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
    go.set()
    assert working.result() == (None, True)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(abs, -1)
    assert_no_threads()
