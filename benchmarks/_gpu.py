"""Shared by the GPU benchmarks: detection of a GPU, event timing, the card's bandwidth, and the loaders that feed it.

Without a GPU the scripts say so in one line and exit with status 0.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from _shared import header

from rxrx_fast import Catalog, DataLoader, Dataset, PlateStats, Policy
from rxrx_fast.bench.work import JITTER, RoundTrip, Work
from rxrx_fast.synth import writer as synthetic

POLICY = Policy(hflip=0.5, vflip=0.5, rot90=1.0, stats_jitter=JITTER)


def parser(text: str, limit: float) -> argparse.ArgumentParser:
    """Make the parser with the options of all scripts; the first line of ``text`` is its description."""
    options = argparse.ArgumentParser(description=text.partition("\n")[0])
    options.add_argument("--data", type=Path, default=Path("/tmp/rxrx_gpu"), help="folder of the generated data")
    options.add_argument("--out", type=Path, default=Path("results"), help="folder for JSON and charts")
    options.add_argument("--limit", type=float, default=limit, help="seconds after which what is left is skipped")
    options.add_argument("--smallest", action="store_true", help="seconds: only to see that it runs")
    return options


def no_gpu() -> str | None:
    """Return why nothing can be measured here, or None."""
    from rxrx_fast.devices.device import missing_for_cuda

    missing = missing_for_cuda()
    return f"nothing measured: {'; '.join(missing)}" if missing else None


def head(name: str, device: str, parameters: dict) -> dict:
    """Return the header of a result with the GPU. COMMIT names the commit where the folder is no git checkout."""
    result = header(name, {"device": device, **parameters})
    result["commit"] = result["commit"] or os.environ.get("COMMIT")
    return result | {"card": card() if device == "cuda" else None}


def card() -> dict:
    """Describe the GPU and the software on it."""
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
    }


class Clock:
    """How long is left of a script's time; what does not fit is left out, and said."""

    def __init__(self, limit: float):
        self._end, self.skipped = time.monotonic() + limit, []

    def left(self, what: str) -> bool:
        if time.monotonic() < self._end:
            return True
        self.skip(what, "the time limit was reached; raise --limit")
        return False

    def skip(self, what: str, why: str) -> None:
        self.skipped.append({"what": what, "why": why})
        print(f"skipped: {what}: {why}", flush=True)


def seconds(work: Callable[[int], object], rounds: int = 20, warm: int = 3) -> dict:
    """GPU time of ``work(turn)`` on the current stream: median, min and max of events around each turn, in seconds."""
    for turn in range(warm):
        work(turn)
    marks = []
    for turn in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work(turn)
        end.record()
        marks.append((start, end))
    torch.cuda.synchronize()
    times = [start.elapsed_time(end) / 1e3 for start, end in marks]
    return {"median": statistics.median(times), "min": min(times), "max": max(times), "rounds": rounds}


def copy_bandwidth() -> float:
    """Bytes a second of a large copy on the card, read and written bytes counted: what a kernel can't beat."""
    source = torch.randint(0, 256, (1 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda _: target.copy_(source))["median"]


class Data:
    """A generated data set, drawn once in a folder, with its statistics; its files are then in the page cache."""

    def __init__(self, folder: Path, sites: int, size: int):
        wells = max(3, sites // 2)
        root = folder / f"gpu-{size}px-{2 * wells}sites"
        made = synthetic.generate(root, experiments=1, plates=1, wells=wells, sites=2, size=size, quiet=True)
        self.catalog = Catalog.read(made).available()
        self.stats = PlateStats.fit(self.catalog, quiet=True)
        paths = [path for paths in self.catalog.files(range(len(self.catalog))) for path in paths]
        self.bytes_a_file = sum(map(os.path.getsize, paths)) / len(paths)

    def files(self, sites: int) -> list[list[bytes]]:
        """Read the encoded files of the first sites."""
        count = min(sites, len(self.catalog))
        return [[Path(path).read_bytes() for path in paths] for paths in self.catalog.files(range(count))]


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables within a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Ours:
    """rxrx_fast.DataLoader, which decodes on the host, on the GPU, or where it chooses ("auto")."""

    def __init__(
        self, data: Data, decode: str, batch: int, threads: int, device: str, dtype: str = "float16",
        channels_last: bool = False,
    ):  # fmt: skip
        self.name = {
            "auto": "rxrx_fast",
            "host": "rxrx_fast, decoded by the host", "own": "rxrx_fast, decoded on the GPU",
            "nvcomp": "rxrx_fast, decoded on the GPU by nvCOMP",
        }[decode]  # fmt: skip
        self._wish = {} if decode == "auto" else {"RXRX_FAST_DECODE": "host" if decode == "host" else "gpu"}
        if decode in ("own", "nvcomp"):
            self._wish["RXRX_FAST_INFLATE"] = decode
        dataset = Dataset(data.catalog, normalize="plate", stats=data.stats, augment=POLICY, dtype=dtype)
        self._sampler, self._batch = RoundTrip(len(dataset)), batch
        self.loader = DataLoader(
            dataset, batch, sampler=self._sampler, num_threads=threads, device=device, channels_last=channels_last
        )

    def batches(self, count: int) -> Iterator[torch.Tensor]:
        self._sampler.count = count * self._batch
        with environment(**self._wish):
            for images, _, _ in self.loader:
                yield images

    def close(self) -> None:
        self.loader = None


class Theirs:
    """A contestant of ``rxrx-fast bench``; its float32 batches are cast on the device."""

    def __init__(self, peer, data: Data, batch: int, threads: int, device: str, dtype: torch.dtype = torch.float16):
        work = Work.of(data.catalog, data.stats, batch_size=batch, threads=threads, device=device)
        self._peer, self._dtype = peer(work), dtype
        self.name = {"DALI": "DALI, mixed decoder", "torch DataLoader + cv2": "torch DataLoader + cv2, pinned copies"}[
            self._peer.name
        ]

    def batches(self, count: int) -> Iterator[torch.Tensor]:
        for images in self._peer.batches(count):
            yield images.to(self._dtype)

    def close(self) -> None:
        self._peer.close()


def feeds(data: Data, batch: int, threads: int, device: str, clock: Clock) -> Iterator[object]:
    """Yield every loader that can feed this device, one at a time. Close each before taking the next."""
    from rxrx_kernels.cuda import nvcomp

    makers: list[tuple[str, Callable]] = []
    # Loaders that fork workers come first, before this process has threads.
    for module in ("torch_cv2", "dali"):
        makers.append((module, lambda module=module: Theirs(peer(module), data, batch, threads, device)))
    for decode in ("host", "own", "nvcomp"):
        makers.append((f"rxrx_fast {decode}", lambda decode=decode: Ours(data, decode, batch, threads, device)))
    for name, make in makers:
        if device == "cpu" and name in ("rxrx_fast own", "rxrx_fast nvcomp"):
            clock.skip(name, "needs a GPU")
            continue
        if name == "rxrx_fast nvcomp" and not nvcomp.available():
            clock.skip(name, "nvCOMP 5 is not installed")
            continue
        if not clock.left(name):
            continue
        try:
            feed = make()
        except ImportError as error:
            clock.skip(name, f"can't be imported ({error})")
            continue
        yield feed


def peer(module: str):
    from importlib import import_module

    return import_module(f"rxrx_fast.bench.peers.{module}").Peer
