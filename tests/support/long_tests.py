"""Choose among the long tests: a seeded sample that fits a time, and no integration left out for want of its package.

Two markers name what ``make test`` leaves out and ``make test-all`` runs. ``slow(seconds)`` is a test that takes long;
the seconds are those of one quiet core. ``integration`` is a test that runs a package which rxrx_fast does not need.

``--budget 15m --seed 7`` shuffles those tests by the seed and keeps the first whose seconds fit. ``--installed`` makes
it a failure that an integration is skipped.
"""

from __future__ import annotations

import argparse
import random
import re
import time

import pytest

#: Seconds of an integration that is not marked slow.
DEFAULT_SECONDS = 3.0
#: A part of the budget is kept for collecting, fixtures, and a slower machine.
USABLE = 0.8


def seconds_of(text: str) -> float:
    """Read a time such as ``900``, ``900s``, ``15m`` or ``1h``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 900, 90s, 15m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def pytest_addoption(parser):
    group = parser.getgroup("long tests")
    group.addoption("--budget", type=seconds_of, metavar="TIME", help="run a sample of the long tests that fits: 15m")
    group.addoption("--seed", type=int, metavar="N", help="which sample; printed, and random where it is not given")
    group.addoption("--installed", action="store_true", help="fail where an integration's package is not installed")


def pytest_configure(config):
    # xdist hands the controller's options to its workers: all of them choose the same tests.
    if config.getoption("budget") is not None and config.getoption("seed") is None:
        config.option.seed = random.SystemRandom().randrange(10**6)


def workers_of(config) -> int:
    """Processes that run tests at the same time."""
    if hasattr(config, "workerinput"):
        return int(config.workerinput["workercount"])
    return max(1, len(getattr(config.option, "tx", None) or ()))


def cost(item) -> float | None:
    """Expected seconds of a long test; None of any other."""
    slow = item.get_closest_marker("slow")
    if slow:
        return float(slow.args[0])
    return DEFAULT_SECONDS if item.get_closest_marker("integration") else None


def sample(costs: dict[str, float], seconds: float, seed: int) -> set[str]:
    """Names of the tests to run: shuffled by the seed, each taken that still fits."""
    names, kept = sorted(costs), set()
    random.Random(seed).shuffle(names)
    for name in names:
        if costs[name] <= seconds:
            seconds -= costs[name]
            kept.add(name)
    return kept


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Keep the sample, and remember what is left out."""
    budget = config.getoption("budget")
    if budget is None:
        return
    costs = {item.nodeid: seconds for item in items if (seconds := cost(item)) is not None}
    kept = sample(costs, budget * workers_of(config) * USABLE, config.option.seed)
    left_out = [item for item in items if item.nodeid in costs and item.nodeid not in kept]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    left_out = sorted(item.nodeid for item in left_out)
    config.stash[_CHOICE] = (len(kept), len(costs), left_out)
    if hasattr(config, "workeroutput"):
        config.workeroutput["choice"] = config.stash[_CHOICE]


_CHOICE: pytest.StashKey[tuple] = pytest.StashKey()
_START = time.monotonic()


def pytest_runtest_setup(item):
    """Begin no long test when the budget is used up: the machine is slower than the seconds say."""
    budget = item.config.getoption("budget")
    if budget is not None and cost(item) is not None and time.monotonic() - _START > budget:
        pytest.skip(f"the budget of {budget:g} s was used up")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn the skip of an integration into a failure where all packages are said to be installed."""
    report = yield
    if report.skipped and item.config.getoption("installed") and item.get_closest_marker("integration"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "budget" not in reason and not hasattr(report, "wasxfail"):
            report.outcome, report.longrepr = "failed", f"{item.nodeid} may not be skipped with --installed: {reason}"
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Take the choice over from a worker of xdist; all made the same."""
    if "choice" in getattr(node, "workeroutput", {}):
        node.config.stash[_CHOICE] = node.workeroutput["choice"]


def pytest_terminal_summary(terminalreporter, config):
    """Say which sample this was, how to repeat it, and what it left out."""
    if config.getoption("budget") is None:
        return
    kept, whole, left_out = config.stash.get(_CHOICE, (0, 0, []))
    terminalreporter.section(
        f"{kept} of {whole} long tests, BUDGET={config.option.budget:g}s SEED={config.option.seed}"
    )
    for name in left_out:
        terminalreporter.line(f"left out: {name}")
