"""Sites a second a core from decoded pixels to standardised, augmented tensors: rxrx_fast and its peers.

    python benchmarks/augmenting.py                                # generates its sites in a folder under /tmp, once
    python benchmarks/augmenting.py --root data/rxrx1
    python benchmarks/augmenting.py --smallest --out /tmp/out      # seconds; says that it runs, not how fast

The work: one decoded site, (6, H, W) uint8 in memory -> each channel standardised by its plate, with jitter -> one of
the policies deepnoise-easy, -normal and -hard -> a contiguous (6, H, W) float32 tensor. The fourth case makes three
tensors of each site, one by each policy. Every library has one thread, and the clock is the process's CPU time: a
library that took a second core would pay for it, and a site waits for nobody else on the machine. Contestants take
turns, round by round. The C library is told to keep freed memory, so that peers, which make new arrays at each step,
do not pay for fresh pages: rxrx_fast recycles its outputs itself, and needs none of it.

Peers draw by their own rules from the same ranges and may do less, never more (see their files): torchvision changes
no aspect. Before the race each is checked against NumPy and rxrx_fast: flips to rounding, a fixed zoom and the erased
area closely. A peer that fails is not raced. Mean and deviation of what the policies make are reported beside the
rates, and remarked on where they differ grossly from ours.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from _augmenting_work import BATCH, PEERS, Ours, Work, missing
from _shared import FAINT, INK, OURS, THEIRS, dress, header, in_turns, new_figure, spread, write
from rxrx_kernels.orient.site import orient_site

from rxrx_fast import Catalog, PlateStats, Policy
from rxrx_fast.augment.policy import PRESETS
from rxrx_fast.bench import machine
from rxrx_fast.synth import writer as synthetic

LEVELS = ("deepnoise-easy", "deepnoise-normal", "deepnoise-hard")
CASES = {**{name: (name,) for name in LEVELS}, "three views": LEVELS}
PACKAGES = ("albumentationsx", "albucore", "numkong", "torchvision", "kornia")


class OtherWork(Exception):
    """A peer's output is not what was asked for."""


def keep_memory() -> bool:
    """Make the C library reuse freed memory instead of returning it to the system; False if it can't."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # M_MMAP_THRESHOLD, at most 32 MiB, and M_TRIM_THRESHOLD of malloc.h.
    return mallopt is not None and all([mallopt(-3, 32 << 20), mallopt(-1, 2**31 - 1)])


def check(make: Callable, work: Work) -> None:
    """Compare a peer with NumPy and rxrx_fast on deterministic operations."""

    def made(who: Callable, **policy) -> np.ndarray:
        return np.stack([x.numpy() for x in who(work, [Policy(border="mean", **policy)]).finish(np.arange(2))])

    flipped = made(make, hflip=1, vflip=1, transpose=1)
    mean, std = (a[:2, :, None, None] for a in (work.mean, work.std))
    expected = (work.stacks[:2, :, ::-1, ::-1].transpose(0, 1, 3, 2) - mean) / std
    if np.abs(flipped - expected).max() > 1e-3:
        raise OtherWork("mirrored and transposed pixels are not NumPy's")
    zoomed, ours = (made(who, zoom=(1.1, 1.1)) for who in (make, Ours))
    # Libraries place pixel centres differently, by half a pixel.
    if np.corrcoef(zoomed.ravel(), ours.ravel())[0, 1] < 0.95 or abs(zoomed.std() / ours.std() - 1) > 0.05:
        raise OtherWork("zoomed pictures are not rxrx_fast's")
    erased = (made(make, erase=1, erase_area=(0.25, 0.25), erase_aspect=(1, 1)) == 0).all(1).mean()
    if abs(erased - 0.25) > 0.02:
        raise OtherWork(f"{erased:.0%} of a picture was erased instead of 25%")


class Lane:
    """A contestant at one of the cases."""

    def __init__(self, contestant, work: Work, seconds: float, most: int):
        self._contestant, self._seconds, self._most = contestant, seconds, most
        self._count, self._rng = len(work), np.random.default_rng(0)

    def _sites(self) -> np.ndarray:
        return self._rng.integers(0, self._count, min(BATCH, self._most))

    def moments(self) -> tuple[float, float]:
        """Return mean and deviation of one batch; also a warm-up."""
        parts = [(x.double().mean(), x.double().square().mean()) for x in self._contestant.finish(self._sites())]
        mean, square = np.mean(parts, axis=0)
        return float(mean), float(np.sqrt(square - mean**2))

    def turn(self) -> float:
        """Return sites per second of CPU time."""
        done, start = 0, time.process_time()
        while (spent := time.process_time() - start) < self._seconds or not done:
            sites = self._sites()
            for image in self._contestant.finish(sites):
                assert image.is_contiguous()
                assert image.dtype == torch.float32
            done += len(sites)
        return done / spent


def contestants(work: Work) -> tuple[list[tuple[str, Callable]], list[dict]]:
    """Return the contestants (ours first) and, for those that can't run, the reason."""
    found, not_run = [(Ours.name, Ours)], []
    for name, package, make in PEERS:
        reason = missing(package)
        try:
            if reason is None:
                check(make, work)
        except Exception as error:  # whatever ails a peer, the others race
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if reason is None:
            found.append((name, make))
        else:
            not_run.append({"name": name, "reason": reason})
    return found, not_run


def race(name: str, work: Work, entered: list[tuple[str, Callable]], options) -> dict:
    """Measure one case: everyone's rates and the statistics of their output."""
    policies = [PRESETS[level] for level in CASES[name]]
    lanes = [Lane(make(work, policies), work, options.seconds, options.batch) for _, make in entered]
    made = [lane.moments() for lane in lanes]
    for lane in lanes:
        lane.turn()
    rates = in_turns([lane.turn for lane in lanes], options.rounds)
    rows = [
        {"name": who, "sites_per_s": spread(runs), "mean": mean, "std": std}
        for (who, _), runs, (mean, std) in zip(entered, rates, made)
    ]
    for row in rows:
        row["ours_is"] = rows[0]["sites_per_s"]["median"] / row["sites_per_s"]["median"]
        # Everyone samples other parameters, so only gross differences mean something.
        row["plausible"] = abs(row["mean"] - rows[0]["mean"]) < 0.25 and 0.75 < row["std"] / rows[0]["std"] < 1.33
    return {"name": name, "policies": list(CASES[name]), "rows": rows, "parts_s": parts(work, policies, options)}


def _median(work: Callable[[], object], repeats: int, count: int) -> float:
    """Return CPU seconds per site."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times)) / count


def parts(work: Work, policies: Sequence[Policy], options) -> dict[str, float]:
    """Return seconds per site of rxrx_fast's parts: sampling on the host, and the kernels."""
    ours, sites = Ours(work, policies), np.arange(options.batch) % len(work)
    plans = ours.plans(sites)
    repeats = 3 * options.rounds
    return {
        "host": _median(lambda: ours.plans(sites), repeats, len(sites)),
        "kernels": _median(lambda: [ours.apply(sites, plan) for plan in plans], repeats, len(sites)),
    }


def floors(work: Work, options) -> dict[str, float]:
    """Return the floors in seconds per site: filling the output, and standardising without augmentation."""
    ours, sites = Ours(work, [Policy()]), np.arange(options.batch) % len(work)
    (plan,) = ours.plans(sites)
    out = ours.apply(sites, plan)
    repeats = 3 * options.rounds

    def standardise() -> None:
        for b, site in enumerate(sites):
            orient_site(work.stacks[site], out[b], 0, plan.center[b], plan.scale[b])

    return {
        "fill": _median(lambda: out.fill(1), repeats, len(sites)),
        "standardise": _median(standardise, repeats, len(sites)),
    }


def table(result: dict) -> str:
    """Format the result for a terminal."""
    width = max(len(row["name"]) for row in [*result["cases"][0]["rows"], *result["not_run"]])
    lines = []
    for case in result["cases"]:
        lines.append(f"{case['name']:{width}}  {'sites/s':>8}  {'min to max':>17}  rxrx_fast is")
        for row in case["rows"]:
            rate, odd = row["sites_per_s"], "" if row["plausible"] else "  what it made differs from ours"
            lines.append(
                f"{row['name']:{width}}  {rate['median']:8.1f}  {rate['min']:8.1f} {rate['max']:8.1f}  "
                f"{row['ours_is']:11.1f}x{odd}"
            )
        host, kernels = (case["parts_s"][name] * 1e3 for name in ("host", "kernels"))
        lines += [f"rxrx_fast, ms a site: {host:.3f} draws and plans, {kernels:.3f} kernels", ""]
    lines += [f"{row['name']:{width}}  not run: {row['reason']}" for row in result["not_run"]]
    floor = {name: seconds * 1e3 for name, seconds in result["floors_s"].items()}
    lines.append(f"floors, ms a site: {floor['fill']:.3f} to fill it, {floor['standardise']:.3f} to standardise it")
    return "\n".join(lines)


def draw(result: dict):
    """Draw one panel per case: rxrx_fast and each library in its faster form."""
    figure = new_figure(11.5, 5.6)
    for axes, case in zip(figure.subplots(2, 2).flat, result["cases"]):
        best: dict[str, dict] = {}
        for row in case["rows"]:
            who = row["name"].partition(",")[0]
            if who not in best or row["sites_per_s"]["median"] > best[who]["sites_per_s"]["median"]:
                best[who] = row
        rates = [row["sites_per_s"] for row in best.values()]
        middle = [rate["median"] for rate in rates]
        ends = np.abs(np.array([[rate[end] for rate in rates] for end in ("min", "max")]) - middle)
        colors = [OURS if who == Ours.name else THEIRS for who in best]
        axes.barh(list(best), middle, color=colors, height=0.66, xerr=ends,
                  error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 3})  # fmt: skip
        for i, (row, rate) in enumerate(zip(best.values(), rates)):
            label = f"{rate['median']:,.0f}" + (f"   (rxrx_fast is {row['ours_is']:.1f}x as fast)" if i else "")
            axes.text(rate["max"] + 0.015 * max(middle), i, label, va="center", color=INK, fontsize=9.5)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.18 * rates[0]["max"])
        many = len(case["policies"])
        dress(axes, case["name"], "one tensor a site" if many == 1 else f"{many} tensors a site, one by each policy")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelsize=10, labelcolor=INK)
    data = result["data"]
    figure.suptitle("From decoded pixels to a standardised, augmented tensor: sites a second on one core", x=0.01,
                    ha="left", color=INK, fontsize=13)  # fmt: skip
    figure.supxlabel(
        f"{data['channels']} x {data['image_size'][0]} x {data['image_size'][1]} uint8 to float32; each library in its "
        f"faster form; median of {result['parameters']['rounds']} rounds, whiskers from slowest to fastest; "
        f"{result['machine']['cpu']}", color=FAINT, fontsize=8.5,
    )  # fmt: skip
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("/tmp/rxrx_augmenting"), help="folder of the generated sites")
    parser.add_argument("--root", type=Path, help="a data set to be used instead")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "augmenting")
    parser.add_argument("--sites", type=int, default=24, help="decoded sites, at most")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn; a turn makes at least a batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--smallest", action="store_true", help="tiny pictures and turns, to see that it runs")
    options = parser.parse_args(arguments)
    options.batch, pixels = BATCH, 512
    if options.smallest:
        options.sites, options.seconds, options.rounds, options.batch, pixels = 4, 0.0, 1, 4, 64
    options.memory_kept = keep_memory()
    torch.set_num_threads(1)
    np.random.seed(0)  # noqa: NPY002  (peers draw from NumPy's global generator)
    torch.manual_seed(0)
    root = options.root
    if root is None:
        root = options.data / f"{pixels}px"
        synthetic.generate(root, experiments=1, plates=4, wells=3, sites=2, size=pixels, quiet=True)
    catalog = Catalog.read(root).available()
    stats = PlateStats.fit(catalog, quiet=True)
    work = Work.of(catalog.take(np.linspace(0, len(catalog) - 1, min(options.sites, len(catalog))).astype(int)), stats)

    names = ("sites", "seconds", "rounds", "batch", "memory_kept")
    result = header("augmenting", {name: getattr(options, name) for name in names})
    result["machine"]["packages"] |= machine.packages(PACKAGES)
    result["data"] = {"sites": len(work), "generated": options.root is None, "channels": work.stacks.shape[1],
                      "image_size": list(work.size)}  # fmt: skip
    entered, result["not_run"] = contestants(work)
    result["floors_s"] = floors(work, options)
    result["cases"] = [race(name, work, entered, options) for name in CASES]
    print(table(result))
    write(result, {"augmenting": draw(result)}, options.out)


if __name__ == "__main__":
    main()
