"""Does the GPU wait? Training steps fed by each loader against the same steps on one batch that stays on the GPU.

    python benchmarks/gpu_training.py --data /tmp/rxrx_gpu --out results
    python benchmarks/gpu_training.py --smallest --device cpu --out /tmp/out     # without a GPU: says that it runs

ResNet-50 and DenseNet-161 with a stem of six channels and 1,139 classes, in mixed precision (float16), channels last,
SGD. A step is forward, loss, backward and update. ``waiting`` is the share of the wall time of fed steps that the same
steps on a resident batch do not take: 1 - resident / fed. ``our kernels`` is the GPU time of this project's kernels and
nvCOMP's a step, as torch's profiler counts it over a few more steps. A batch that does not fit is halved until it does.
"""

from __future__ import annotations

import time

import _gpu
import torch
from _shared import FAINT, INK, OURS, SERIES, dress, new_figure, write
from _training import CLASSES, Trainer, build, fitting

from rxrx_fast.bench import machine
from rxrx_fast.errors import UsageError

#: Models, their names here, image sizes, and the first batch size to try.
SETTINGS = (
    ("resnet50", 512, 128),
    ("resnet50", 256, 256),
    ("densenet161", 512, 48),
    ("densenet161", 256, 128),
)


def step_seconds(trainer: Trainer, batches, warm: int) -> tuple[float, int]:
    """Return wall seconds per step after the warm-up steps, and the number of timed steps."""
    steps, start = 0, 0.0
    for number, images in enumerate(batches):
        if number == warm:
            trainer.wait()
            start = time.perf_counter()
        trainer.step(images)
        steps = number + 1 - warm
    trainer.wait()
    return (time.perf_counter() - start) / steps, steps


def kernel_seconds(trainer: Trainer, batches, steps: int) -> float | None:
    """Return GPU seconds per step of this project's and nvCOMP's kernels; None without a GPU profiler."""
    from torch.profiler import ProfilerActivity, profile

    if not torch.cuda.is_available():
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for images in batches:
            trainer.step(images)
        trainer.wait()
    ours = [event for event in found.key_averages() if any(s in event.key for s in ("rxrx_kernels", "nvcomp"))]
    return sum(event.self_device_time_total for event in ours) / 1e6 / steps


def measure(setting, data, threads: int, options, clock) -> dict | None:
    name, size, batch = setting
    try:
        model, source = build(name)
    except UsageError as error:
        clock.skip(name, str(error))
        return None
    # Half precision is no faster on a CPU and incomplete on some.
    on_gpu = options.device == "cuda"
    trainer = Trainer(model, options.device, "float16" if on_gpu else "float32")
    resident = fitting(trainer, batch, size, options.device, torch.float16 if on_gpu else torch.float32)
    batch = len(resident)
    alone, _ = step_seconds(trainer, (resident for _ in range(options.steps + options.warm)), options.warm)
    row = {"model": name, "source": source, "size": size, "batch": batch, "resident_step_s": alone, "feeds": []}
    print(f"{name} {size} x {size}, batches of {batch}: {alone * 1e3:.1f} ms a step on a resident batch", flush=True)
    del resident
    for feed in _gpu.feeds(data, batch, threads, options.device, clock):
        try:
            convert = (lambda images: images) if on_gpu else torch.Tensor.float
            fed, steps = step_seconds(trainer, map(convert, feed.batches(options.steps + options.warm)), options.warm)
            ours = feed.name.startswith("rxrx_fast")
            kernels = kernel_seconds(trainer, map(convert, feed.batches(5)), 5) if ours else None
        finally:
            feed.close()
        waiting = 1 - alone / fed
        row["feeds"].append({"name": feed.name, "step_s": fed, "steps": steps, "sites_per_s": batch / fed,
                             "waiting": waiting, "our_kernels_s": kernels})  # fmt: skip
        told = "" if kernels is None else f", our kernels {kernels * 1e3:.2f} ms"
        print(f"    {feed.name:42} {fed * 1e3:8.1f} ms a step, waiting {waiting:6.1%}{told}", flush=True)
    return row


def draw(rows, where):
    figure = new_figure(8, 1.2 + sum(0.5 + 0.36 * len(row["feeds"]) for row in rows))
    heights = [1 + len(row["feeds"]) for row in rows]
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, row in zip(panels, rows):
        names = [feed["name"] for feed in row["feeds"]]
        steps = [feed["step_s"] * 1e3 for feed in row["feeds"]]
        colors = [OURS if name.startswith("rxrx_fast") else SERIES[1] for name in names]
        axes.barh(range(len(names)), steps, color=colors, height=0.6)
        for i, feed in enumerate(row["feeds"]):
            axes.annotate(f"waiting {max(feed['waiting'], 0):.0%}", (steps[i], i), (5, 0),
                          textcoords="offset points", va="center", color=FAINT, fontsize=8.5)  # fmt: skip
        axes.axvline(row["resident_step_s"] * 1e3, color=INK, lw=1, ls="--")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, max(steps, default=1) * 1.25)
        dress(axes, f"{row['model']}, {row['size']} x {row['size']}, batches of {row['batch']}",
              where if axes is panels[0] else "", xlabel="ms a step; dashed: on a resident batch")  # fmt: skip
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = _gpu.parser(__doc__, limit=260)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only to see that it runs")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each model and loader")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and (reason := _gpu.no_gpu()):
        print(f"gpu_training: {reason}")
        return
    settings, threads, sites, options.warm = SETTINGS, machine.usable_cores(), 48, 3
    if options.smallest:
        options.warm = 1
        settings, threads, sites, options.steps = (("resnet50", 64, 2),), 2, 6, 1
    clock = _gpu.Clock(options.limit)
    torch.backends.cudnn.benchmark = True
    data, rows = {}, []
    for setting in settings:
        if clock.left(f"{setting[0]} at {setting[1]}"):
            size = setting[1]
            data.setdefault(size, None)
            data[size] = data[size] or _gpu.Data(options.data, sites, size)
            row = measure(setting, data[size], threads, options, clock)
            rows += [row] if row else []
            if options.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
    parameters = {"steps": options.steps, "threads": threads, "precision": "float16 autocast", "classes": CLASSES}
    result = _gpu.head("gpu_training", options.device, parameters) | {"rows": rows, "skipped": clock.skipped}
    name = result["card"]["name"] if result["card"] else result["machine"]["cpu"]
    write(result, {"gpu_training": draw(rows, f"{name}, {threads} threads")} if rows else {}, options.out)


if __name__ == "__main__":
    main()
