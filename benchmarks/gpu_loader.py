"""Sites a second from PNG files to float16 batches on the GPU: ours, decoded by the host or the GPU, and the others.

    python benchmarks/gpu_loader.py --data /tmp/rxrx_gpu --out results
    python benchmarks/gpu_loader.py --smallest --device cpu --out /tmp/out     # without a GPU: says that it runs

The work is W1 of ``rxrx-fast bench``. Everyone has as many threads (or worker processes) as the process may use cores,
and reads from the page cache. A turn is a whole pass of some seconds and ends when the GPU is done; turns are taken one
contestant after the other, because two can't share a card's memory, after two turns that warm up.
"""

from __future__ import annotations

import time

import _gpu
import torch
from _shared import INK, OURS, THEIRS, dress, new_figure, spread, write

from rxrx_fast.bench import machine
from rxrx_fast.bench.work import DESCRIPTION


def turn(feed, batches: int, batch: int, device: str) -> float:
    """Measure sites per second of one pass."""
    start = time.perf_counter()
    sites = 0
    for images in feed.batches(batches):
        sites += len(images)
        if images.dtype != torch.float16 or images.device.type != device:
            raise SystemExit(f"{feed.name} delivers {images.dtype} on {images.device}")
    if device == "cuda":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    if sites != batches * batch:
        raise SystemExit(f"{feed.name} delivered {sites} sites instead of {batches * batch}")
    return sites / elapsed


def measure(data, batch: int, threads: int, options, clock) -> list[dict]:
    """Measure everyone at one batch size."""
    rows = []
    for feed in _gpu.feeds(data, batch, threads, options.device, clock):
        try:
            turn(feed, threads, batch, options.device)
            rate = turn(feed, 2 * threads, batch, options.device)
            batches = max(2, round(rate * options.seconds / batch))
            runs = [turn(feed, batches, batch, options.device) for _ in range(options.rounds)]
        finally:
            feed.close()
        rows.append({"name": feed.name, "batch": batch, "sites_per_s": spread(runs)})
        print(f"{feed.name:42} batch {batch:4} {rows[-1]['sites_per_s']['median']:10,.0f} sites/s", flush=True)
    return rows


def draw(rows, where):
    sizes = sorted({row["batch"] for row in rows})
    figure = new_figure(7.5, 1.4 + 0.42 * len(rows))
    panels = figure.subplots(len(sizes), 1, sharex=True, squeeze=False)[:, 0]
    for axes, batch in zip(panels, sizes):
        mine = sorted((row for row in rows if row["batch"] == batch), key=lambda row: row["sites_per_s"]["median"])
        rates = [row["sites_per_s"]["median"] for row in mine]
        colors = [OURS if row["name"].startswith("rxrx_fast") else THEIRS for row in mine]
        axes.barh(range(len(mine)), rates, color=colors, height=0.62)
        for i, rate in enumerate(rates):
            axes.annotate(f"{rate:,.0f}", (rate, i), (5, 0), textcoords="offset points", va="center", color=INK)
        axes.set_yticks(range(len(mine)), [row["name"] for row in mine])
        dress(axes, f"batches of {batch}", "" if axes is not panels[0] else where)
    panels[-1].set_xlabel("sites a second, PNG files to float16 batches")
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = _gpu.parser(__doc__, limit=150)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only to see that it runs")
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long a turn takes")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and (reason := _gpu.no_gpu()):
        print(f"gpu_loader: {reason}")
        return
    size, threads = (64, 2) if options.smallest else (512, machine.usable_cores())
    if options.smallest:
        options.seconds, options.rounds = 0.1, 1
    data = _gpu.Data(options.data, 6 if options.smallest else 48, size)
    clock = _gpu.Clock(options.limit)
    rows = []
    for batch in (4,) if options.smallest else (256, 64):
        rows += measure(data, batch, threads, options, clock)
    parameters = {"work": DESCRIPTION, "dtype": "float16", "size": size, "threads": threads,
                  "seconds": options.seconds, "rounds": options.rounds}  # fmt: skip
    result = _gpu.head("gpu_loader", options.device, parameters)
    result |= {"bytes_a_file": data.bytes_a_file, "rows": rows, "skipped": clock.skipped}
    name = result["card"]["name"] if result["card"] else result["machine"]["cpu"]
    write(result, {"gpu_loader": draw(rows, f"{name}, {threads} threads, {size} x {size}")}, options.out)


if __name__ == "__main__":
    main()
