"""Is training IO-bound? Steps fed by the loader against the same steps on a resident batch, by backbone and size.

    python benchmarks/training.py --data /tmp/rxrx_training              # again: goes on with the rows that are missing
    python benchmarks/training.py --smallest --out /tmp/out              # seconds: only to see that it runs

A step is forward, loss, backward and update, under autocast to bfloat16 where the processor has instructions for it.
The work of the loader is W1 of ``rxrx-fast bench``. On a GPU, see also gpu_training.py, which compares ways to decode.

**A window** is a stretch of steps that begins after some that are not timed, and ends while more batches are asked for,
so that the loader is at work all through it: nothing was decoded in advance, and what is decoded in it is not more than
what is consumed. Windows on a resident batch and fed ones take turns. ``against_resident`` is a fed window's time
over that of the resident window of its round: 1.02 says that feeding the model costs it 2%, by waiting or, where the
model computes on the CPU, by the cores that they share. ``waiting`` is the share of a window in which the step waited
for a batch; ``waiting_by_meter`` is what the loader's own meter says of the same windows.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import deque
from datetime import datetime, timezone
from pathlib import Path

import _gpu
import torch
from _shared import FAINT, INK, OURS, THEIRS, dress, in_turns, new_figure, spread, write
from _training import CLASSES, Trainer, build, fitting

from rxrx_fast.bench import machine
from rxrx_fast.bench.work import DESCRIPTION
from rxrx_fast.errors import UsageError

#: Batch size by backbone and image size, such that a step takes at most two seconds on a CPU.
BATCHES = {
    "cpu": {
        "small": {64: 64, 128: 32, 256: 16, 512: 8},
        "resnet18": {64: 64, 128: 32, 256: 16, 512: 8},
        "resnet50": {64: 32, 128: 16, 256: 8, 512: 4},
        "densenet161": {64: 16, 128: 8, 256: 4, 512: 2},
    },
    "cuda": {
        "small": {64: 1024, 128: 512, 256: 256, 512: 64},
        "resnet18": {64: 1024, 128: 512, 256: 256, 512: 128},
        "resnet50": {64: 1024, 128: 512, 256: 256, 512: 128},
        "densenet161": {64: 512, 128: 256, 256: 128, 512: 48},
    },
}
#: The model that torch's DataLoader feeds too: the smallest, so it waits first.
WITH_PEER = ("small",)
# Extra batches beyond a window, so that prefetching does not end within it: more than any loader prefetches.
_BEYOND = 10


def precision(device: str) -> str:
    """Return bfloat16 if the CPU has instructions for it, else float32."""
    if device == "cuda":
        return "bfloat16"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"


class Window:
    """A clock of steps in the middle of a run of batches."""

    def __init__(self, trainer: Trainer, steps: int):
        self._trainer, self.steps = trainer, steps
        # After these steps the prefetched batches are used up.
        self.before = max(2, steps // 4)

    def time(self, batches, loader=None) -> dict[str, float]:
        """Return seconds per step, the share of waiting, and the loader's own figures."""
        batches = iter(batches)
        for _ in range(self.before):
            self._trainer.step(next(batches))
        self._trainer.wait()
        clocks = self._clocks(loader)
        start, waited = time.perf_counter(), 0.0
        for _ in range(self.steps):
            asked = time.perf_counter()
            images = next(batches)
            waited += time.perf_counter() - asked
            self._trainer.step(images)
        self._trainer.wait()
        took = time.perf_counter() - start
        # The meter counts the work on a batch when the next one is asked for.
        images = next(batches, None)
        by_meter = [after - before for before, after in zip(clocks, self._clocks(loader))]
        del images
        deque(batches, maxlen=0)
        return {
            "step_s": took / self.steps,
            "waiting": waited / took,
            "by_meter": by_meter[0] / sum(by_meter) if sum(by_meter) else 0.0,
        }

    @staticmethod
    def _clocks(loader) -> tuple[float, float]:
        told = loader.report() if loader is not None else {"waited_s": 0.0, "worked_s": 0.0}
        return told["waited_s"], told["worked_s"]

    def resident(self, images: torch.Tensor) -> float:
        return self.time(images for _ in range(self.before + self.steps))["step_s"]

    def fed(self, feed) -> dict[str, float]:
        count = self.before + self.steps + _BEYOND
        return self.time(feed.batches(count), getattr(feed, "loader", None))


def measure(name: str, size: int, batch: int, data: _gpu.Data, options, clock: _gpu.Clock) -> dict | None:
    """Measure one row; None if it is skipped, with the reason printed."""
    what = f"{name} at {size}"
    try:
        model, source = build(name)
    except UsageError as error:
        clock.skip(what, str(error))
        return None
    kind, device, threads = precision(options.device), options.device, options.threads
    trainer = Trainer(model, device, kind)
    parameters = sum(weights.numel() for weights in model.parameters())
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    resident = fitting(trainer, batch, size, device, dtype).contiguous(memory_format=torch.channels_last)
    batch = len(resident)
    about = Window(trainer, 2).resident(resident)
    if about > options.longest:
        clock.skip(what, f"a step takes {about:.1f} s on this machine; raise --longest")
        return None
    window = Window(trainer, min(max(2, round(options.seconds / about)), 200))
    feeds = [_gpu.Ours(data, "auto", batch, threads, device, str(dtype).removeprefix("torch."), channels_last=True)]
    if name in WITH_PEER:
        feeds.append(_gpu.Theirs(_gpu.peer("torch_cv2"), data, batch, threads, device, dtype))
    # Warm-up: compiled code, workers, memory.
    for feed in feeds:
        for _ in feed.batches(3):
            pass
    turns = [lambda: window.resident(resident), *((lambda feed=feed: window.fed(feed)) for feed in feeds)]
    try:
        alone, *fed = in_turns(turns, options.rounds)
    finally:
        for feed in feeds:
            feed.close()
    row = {
        "model": name, "source": source, "parameters": parameters, "size": size, "batch": batch, "precision": kind,
        "steps": window.steps, "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "load_average": list(os.getloadavg()), "resident_step_s": spread(alone), "feeds": [],
    }  # fmt: skip
    for feed, runs in zip(feeds, fed):
        steps = [run["step_s"] for run in runs]
        row["feeds"].append({
            "name": feed.name,
            "step_s": spread(steps),
            "sites_per_s": spread([batch / step for step in steps]),
            "against_resident": spread([step / own for step, own in zip(steps, alone)]),
            "waiting": spread([run["waiting"] for run in runs]),
            "waiting_by_meter": spread([run["by_meter"] for run in runs]) if feed is feeds[0] else None,
        })  # fmt: skip
    return row


def kept(path: Path, result: dict) -> list[dict]:
    """Return the rows of an earlier run with the same code, settings and machine."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    same = all(before.get(key) == result[key] for key in ("commit", "machine", "parameters"))
    return before["rows"] if same and not str(result["commit"]).endswith("+changes") else []


def table(rows: list[dict]) -> str:
    """Format the rows as Markdown."""
    lines = [
        "| backbone | pixels | batch | resident, ms a step | fed, ms a step | fed / resident | waited | sites/s "
        "| torch DataLoader + cv2: fed / resident | waited |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        ours, *others = row["feeds"]
        cells = [row["model"], row["size"], row["batch"], f"{row['resident_step_s']['median'] * 1e3:,.0f}",
                 f"{ours['step_s']['median'] * 1e3:,.0f}", _ratio(ours), f"{ours['waiting']['median']:.1%}",
                 f"{ours['sites_per_s']['median']:,.0f}"]  # fmt: skip
        cells += [_ratio(others[0]), f"{others[0]['waiting']['median']:.1%}"] if others else ["", ""]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _ratio(feed: dict) -> str:
    found = feed["against_resident"]
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def draw(rows: list[dict], where: str):
    """Draw the cost of feeding per row: above 1 is time that the model would not need alone."""
    bars = [(f"{row['model']}, {row['size']} px", feed) for row in rows for feed in row["feeds"]]
    figure = new_figure(8, 1.7 + 0.27 * len(bars))
    axes = figure.subplots()
    most = 1.0
    for place, (_name, feed) in enumerate(bars):
        ours, found = feed["name"] == "rxrx_fast", feed["against_resident"]
        axes.barh(place, found["median"], color=OURS if ours else THEIRS, height=0.7)
        axes.plot([found["min"], found["max"]], [place, place], color=INK, lw=1)
        axes.annotate(f"{found['median']:.2f}, waited {feed['waiting']['median']:.0%}", (found["max"], place), (5, 0),
                      textcoords="offset points", va="center", color=FAINT, fontsize=8)  # fmt: skip
        most = max(most, found["max"])
    axes.axvline(1, color=INK, lw=1, ls="--")
    names = [name if feed["name"] == "rxrx_fast" else "the same, torch DataLoader + cv2" for name, feed in bars]
    axes.set_yticks(range(len(bars)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.3)
    dress(axes, "Time of a fed training step over that on a resident batch", where,
          xlabel="dashed: nothing is waited for, and the cores are not shared")  # fmt: skip
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("/tmp/rxrx_training"), help="folder of the generated data")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=machine.usable_cores(), help="of the loader; torch has its own")
    parser.add_argument("--seconds", type=float, default=2.5, help="about how long a window takes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=float, default=2.5, help="seconds a step above which a row is skipped")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which no further row is begun")
    parser.add_argument("--smallest", action="store_true", help="one tiny row, to see that it runs")
    options = parser.parse_args(arguments)
    if options.device == "auto":
        options.device = "cpu" if _gpu.no_gpu() else "cuda"
    sites, wanted = 48, BATCHES[options.device]
    if options.smallest:
        sites, wanted = 6, {"small": {64: 2}}
        options.seconds, options.rounds = 0.01, 1
    torch.backends.cudnn.benchmark = True
    parameters = {"work": DESCRIPTION, "threads": options.threads, "torch_threads": torch.get_num_threads(),
                  "seconds": options.seconds, "rounds": options.rounds, "classes": CLASSES}  # fmt: skip
    result = _gpu.head("training", options.device, parameters)
    clock = _gpu.Clock(options.limit)
    rows = kept(options.out / "training.json", result)
    done = {(row["model"], row["size"]) for row in rows}
    where = (f"{result['card']['name'] if result['card'] else result['machine']['cpu']}, "
             f"{result['machine']['cores']} cores, {precision(options.device)}")  # fmt: skip
    for name, sizes in wanted.items():
        for size, batch in sizes.items():
            if (name, size) in done or not clock.left(f"{name} at {size}"):
                continue
            row = measure(name, size, batch, _gpu.Data(options.data, sites, size), options, clock)
            if row is not None:
                rows.append(row)
                print(table([row]).splitlines()[-1], flush=True)
            if rows:
                rows.sort(key=lambda row: (list(wanted).index(row["model"]), row["size"]))
                write(result | {"rows": rows, "skipped": clock.skipped}, {"training": draw(rows, where)}, options.out)
    print(table(rows))


if __name__ == "__main__":
    main()
