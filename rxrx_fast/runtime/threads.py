"""A pool of threads that never keeps a process from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any

__all__ = ["Pool"]


class Pool(Executor):
    """As ``concurrent.futures.ThreadPoolExecutor``, with daemon threads.

    The standard pool's threads are joined when the interpreter ends. One that reads from a file system that no longer
    answers would keep the process from ending.

    Parameters
    ----------
    threads : int
        At least 1; all are started at once.
    name : str
        The threads are called ``name_0``, ``name_1``, ...
    initializer : callable, optional
        Called by each thread first, without arguments; must not raise.
    """

    def __init__(self, threads: int, name: str, initializer: Callable[[], object] | None = None):
        self._tasks: SimpleQueue = SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=_work, args=(self._tasks, initializer), name=f"{name}_{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future:
        """Have ``function`` called by the next free thread."""
        if self._closed:
            raise RuntimeError("the pool is closed")
        future: Future = Future()
        self._tasks.put((future, function, arguments, named))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; with ``wait``, wait for those running, and for those queued unless they are cancelled."""
        self._closed = True
        if cancel_futures:
            try:
                while True:
                    future, *_ = self._tasks.get_nowait()
                    if future is not None:
                        future.cancel()
            except Empty:
                pass
        for _ in self._threads:
            self._tasks.put((None,))
        if wait:
            for thread in self._threads:
                thread.join()


def _work(tasks: SimpleQueue, initializer: Callable[[], object] | None) -> None:
    if initializer is not None:
        initializer()
    # Keep no task in a variable while waiting for the next: it would keep a batch's memory in use.
    while _run(*tasks.get()):
        pass


def _run(
    future: Future | None,
    function: Callable[..., Any] | None = None,
    arguments: tuple | None = (),
    named: dict[str, Any] | None = None,
) -> bool:
    if future is None or function is None:
        return False
    if future.set_running_or_notify_cancel():
        try:
            result = function(*(arguments or ()), **(named or {}))
        except BaseException as error:
            future.set_exception(error)
            # The error refers to this frame: drop the references back, or they form a cycle that keeps the arguments.
            future = function = arguments = named = None
        else:
            future.set_result(result)
    return True
