"""A pytest plugin that breaks the loader: every epoch ends before its first batch. ``pytest -p ends_at_once``.

A test that asks a loader for a batch must then fail. Its outcome is turned around: a failure under the mutation is
reported as passed, a pass as failed. Tests that ask for no batch, or in another process, are skipped afterwards.
"""

import pytest

from rxrx_fast.deliver.iterator import EpochIterator

_asked: list[bool] = []


def _end(self):
    _asked.append(True)
    self.close()
    raise StopIteration


EpochIterator.__next__ = _end


def pytest_runtest_setup(item):
    _asked.clear()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(item, call):
    """Turn the outcome of a test that streams around."""
    report = yield
    if report.skipped or (report.when != "call" and report.passed):
        return report
    if report.when == "teardown":
        report.outcome, report.longrepr = "passed", None
    elif report.when == "setup" or not _asked:
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, "Skipped: asks for no batch in this process")
    elif report.passed:
        report.outcome, report.longrepr = "failed", f"{item.nodeid} passes although every epoch ends at once"
    else:
        report.outcome, report.longrepr = "passed", None
    return report
