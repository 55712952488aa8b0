"""Each GPU kernel alone: inflate against the number of streams, and the others against the card's own copy bandwidth.

    python benchmarks/gpu_kernels.py --data /tmp/rxrx_gpu --out results
    python benchmarks/gpu_kernels.py --smallest --out /tmp/out        # seconds; says that it runs, not how fast

Times are of events around each launch, medians; inputs are rotated where they would stay in the cache. Every kernel's
output is compared with the CPU's before it is timed.

**Bytes** that are counted: inflate: what it writes. Adler-32: what it reads. Filters: filtered bytes read and pixels
written. Fused and augmentation kernels: pixels read and values written. Histograms: pixels read. Per cent are of the
bandwidth of a 1 GiB copy on the same card, bytes read and written, in the same run.

Peers mirror, normalise and cast the same batch to float16 (:mod:`_gpu_peers`); bytes are counted as for the fused
kernel, whatever they read and write in between.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import _gpu
import numpy as np
import torch
from _gpu_peers import PEERS
from _shared import FAINT, INK, OURS, SERIES, THEIRS, dress, new_figure, write

from rxrx_fast.bench import machine
from rxrx_fast.decode.cuda_png import PngLauncher, pack
from rxrx_fast.runtime.buffers import Buffers

#: Pixels on a side, streams at once, and sites a batch.
FULL, SMALLEST = (512, (384, 768, 1536, 3072, 6144), 256), (128, (36, 72), 8)


class Batch:
    """Streams in GPU memory: a few sites, repeated to the number asked for, each copy in its own memory."""

    def __init__(self, files: list[list[np.ndarray]], sites: int, size: tuple[int, int], pool: ThreadPoolExecutor):
        self.size, self.channels = size, len(files[0])
        repeated = [files[i % len(files)] for i in range(sites)]
        self.packed = pack(repeated, size, Buffers(1, pinned=True), pool)
        if self.packed.streams.status.any():
            raise SystemExit("a file of the generated data set is damaged")
        self.count = len(self.packed.streams.starts)
        self.data = torch.from_numpy(self.packed.buffer).cuda()
        self.bytes_in = int(self.packed.streams.sizes.sum())
        self.room = size[0] * (1 + size[1])


def inflate_seconds(batch: Batch, kind: str) -> dict:
    """Measure the GPU time of inflating a batch, after checking every status and Adler-32."""
    from numba import cuda
    from rxrx_kernels.cuda import deflate as cuda_inflate
    from rxrx_kernels.cuda import nvcomp
    from rxrx_kernels.cuda import png as cuda_png

    streams, room, device = batch.packed.streams, batch.room, "cuda"
    pitch = -(-room // 32) * 32
    starts, sizes = (torch.from_numpy(part).to(device) for part in (streams.starts, streams.sizes))
    adlers = torch.from_numpy(streams.adlers.view(np.int32)).to(device)
    out = torch.empty((batch.count, pitch), dtype=torch.uint8, device=device)
    decoded = torch.empty(batch.count, dtype=torch.int64, device=device)
    status = torch.zeros(batch.count, dtype=torch.int32, device=device)
    pointer = torch.cuda.current_stream().cuda_stream
    queue = cuda.external_stream(pointer)
    words, sums = (cuda.as_cuda_array(t).view(np.uint32) for t in (batch.data, adlers))
    if kind == "nvcomp":
        sources, targets = starts + batch.data.data_ptr(), torch.arange(batch.count, device=device) * pitch
        targets, rooms = targets + out.data_ptr(), torch.full_like(starts, room)
        temporary = nvcomp.temporary_bytes(batch.count, room, batch.count * room)
        scratch = torch.empty(temporary, dtype=torch.uint8, device=device) if temporary else None

    def work(_):
        if kind == "nvcomp":
            nvcomp.inflate_batch(sources, sizes, rooms, targets, decoded, status, scratch, pointer)
        else:
            cuda_inflate.inflate_batch(words, starts, sizes, room, out, decoded, status, queue)

    out.random_()
    work(0)
    cuda_png.check_adler_batch(out, room, sums, status, queue)
    if status.any() or (decoded != room).any():
        raise SystemExit(f"{kind}: {int((status != 0).sum())} of {batch.count} streams came out wrong")
    return _gpu.seconds(work, rounds=10, warm=2)


def inflate_rows(files, size, counts, pool, clock) -> list[dict]:
    """Measure inflate by number of streams."""
    from rxrx_kernels.cuda import nvcomp

    rows = []
    for streams in counts:
        if not clock.left(f"inflate of {streams} streams"):
            break
        batch = Batch(files, streams // len(files[0]), size, pool)
        for kind in ("own", "nvcomp"):
            if kind == "nvcomp" and not nvcomp.available():
                clock.skip(f"nvCOMP, {streams} streams", "not installed")
                continue
            found = inflate_seconds(batch, kind)
            rows.append({
                "inflate": kind, "streams": batch.count, "seconds": found,
                "bytes_in": batch.bytes_in, "bytes_out": batch.count * batch.room,
                "gb_per_s": batch.count * batch.room / found["median"] / 1e9,
                "sites_per_s": batch.count / batch.channels / found["median"],
            })  # fmt: skip
            print(f"inflate {kind:7} {batch.count:5} streams {found['median'] * 1e3:8.2f} ms "
                  f"{rows[-1]['gb_per_s']:8.1f} GB/s {rows[-1]['sites_per_s']:9.0f} sites/s", flush=True)  # fmt: skip
        del batch
    return rows


def other_rows(files, size, sites, pool, bandwidth, clock) -> list[dict]:
    """Measure the memory-bound kernels against the card's copy bandwidth."""
    from numba import cuda
    from rxrx_kernels.cuda import orient as kernels
    from rxrx_kernels.cuda import png as cuda_png
    from rxrx_kernels.histogram import uint8 as moments
    from rxrx_kernels.orient.site import orient_site

    batch = Batch(files, sites, size, pool)
    stream = torch.cuda.Stream()
    decoder = PngLauncher(
        0, stream.cuda_stream, size, batch.channels, Buffers(1, pinned=True), batch=sites, inflate="own"
    )
    stream.wait_stream(torch.cuda.current_stream())
    launch = decoder.launch(batch.data, batch.packed)
    if decoder.settle(launch):
        raise SystemExit("the GPU refused whole streams")
    stack = launch.stack
    queue = cuda.external_stream(torch.cuda.current_stream().cuda_stream)
    pixels = stack.numel()
    sites, channels = stack.shape[:2]
    rng = np.random.default_rng(0)
    center, scale = (rng.uniform(1, 50, (sites, channels)).astype(np.float32) for _ in range(2))
    tables = [torch.from_numpy(table).cuda() for table in (center, scale)]
    rows = []

    def row(name: str, moved: int, work) -> None:
        if not clock.left(name):
            return
        found = _gpu.seconds(work)
        rate = moved / found["median"]
        rows.append({"kernel": name, "sites": sites, "bytes": moved, "seconds": found, "gb_per_s": rate / 1e9,
                     "share_of_copy": rate / bandwidth})  # fmt: skip
        print(f"{name:30} {found['median'] * 1e3:8.3f} ms {rate / 1e9:8.0f} GB/s {rate / bandwidth:6.1%} of the copy",
              flush=True)  # fmt: skip

    filtered = _filtered(stack)
    again = torch.empty_like(stack)
    status = torch.zeros(batch.count, dtype=torch.int32, device="cuda")
    cuda_png.unfilter_batch(filtered, again, status, queue)
    if not again.equal(stack) or status.any():
        raise SystemExit("the filters were not undone")
    row("filters undone (Paeth)", filtered.numel() + pixels,
        lambda _: cuda_png.unfilter_batch(filtered, again, status, queue))  # fmt: skip
    sums = cuda.as_cuda_array(torch.zeros(batch.count, dtype=torch.int32, device="cuda")).view(np.uint32)
    fresh = torch.zeros_like(status)

    def add_up(_):
        fresh.zero_()
        cuda_png.check_adler_batch(filtered, filtered.shape[1], sums, fresh, queue)

    row("Adler-32", filtered.numel(), add_up)
    counts = torch.zeros((sites, channels, 256), dtype=torch.int32, device="cuda")
    kernels.histogram_batch(stack, counts, queue)
    if not np.array_equal(counts[0].cpu().numpy(), moments.histogram(stack[0].cpu().numpy())):
        raise SystemExit("the histogram is wrong")
    row("histogram", pixels, lambda _: kernels.histogram_batch(stack, counts, queue))
    for name, code in (("straight", 0), ("mirrored", 1), ("turned", 5)):
        codes = torch.full((sites,), code, dtype=torch.uint8, device="cuda")
        for kind in (torch.float16, torch.float32, torch.uint8):
            out = torch.empty(stack.shape, dtype=kind, device="cuda")
            target = cuda.as_cuda_array(out)
            kernels.orient_batch(stack, target, codes, *tables, queue)
            wanted = np.empty(stack.shape[1:], out[0].cpu().numpy().dtype)
            values = (None, None) if kind is torch.uint8 else (center[0], scale[0])
            orient_site(stack[0].cpu().numpy(), wanted, code, *values)
            if not np.array_equal(out[0].cpu().numpy(), wanted):
                raise SystemExit(f"the fused kernel is wrong: {name}, {kind}")
            row(f"fused, {name}, {str(kind).removeprefix('torch.')}", pixels * (1 + out.element_size()),
                lambda _, to=target, codes=codes: kernels.orient_batch(stack, to, codes, *tables, queue))  # fmt: skip
    augmentations(stack, queue, row)
    wide_pixels(stack, tables, queue, row)
    peers(stack, tables, row, clock)
    return rows


def augmentations(stack: torch.Tensor, queue, row) -> None:
    """Measure a preset's separable maps, and all operations together, to float16."""
    from numba import cuda
    from rxrx_kernels.augment import blur, warp
    from rxrx_kernels.augment.site import augment_site, plain
    from rxrx_kernels.augment.tables import stack_augmentations
    from rxrx_kernels.cuda import augment as cuda_augment

    sites, channels, height, width = stack.shape
    angle, middle = np.deg2rad(20), (width - 1) / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    base = plain(channels, np.full(channels, 20.0), np.full(channels, 0.05))
    zoomed = base._replace(matrix=warp.fixed(np.array([[0.93, 0, 11.2], [0, 0.95, 7.1]])))
    turned = base._replace(matrix=warp.fixed(np.c_[turn, middle - turn @ [middle, middle]]))
    noisy = turned._replace(noise=np.full((channels, 2), 1.0, np.float32), blur=blur.gaussian(1.0))
    scratch = torch.empty(cuda_augment.blur_bytes(tuple(stack.shape)), dtype=torch.uint8, device=stack.device)
    for name, case in (("zoomed", zoomed), ("turned by 20 degrees", turned), ("turned, blurred, noise", noisy)):
        tables = stack_augmentations([case] * sites, tuple(stack.shape[1:]), (height, width))
        work = tables.work()
        on_gpu = type(tables)(*(cuda.as_cuda_array(torch.from_numpy(table).cuda()) for table in tables))
        out = torch.empty(stack.shape, dtype=torch.float16, device=stack.device)

        def launch(_, on_gpu=on_gpu, out=out, work=work):
            cuda_augment.augment_batch(stack, out, on_gpu, queue, work=work, scratch=scratch)

        launch(0)
        wanted = np.empty(stack.shape[1:], np.float16)
        augment_site(stack[0].cpu().numpy(), wanted, case)
        if not np.array_equal(out[0].cpu().numpy(), wanted):
            raise SystemExit(f"the augmentation kernel is wrong: {name}")
        row(f"augmented, {name}, float16", stack.numel() * 3, launch)


def wide_pixels(stack: torch.Tensor, tables, queue, row) -> None:
    """Measure 16-bit pixels: the orient kernel and the histogram."""
    from numba import cuda
    from rxrx_kernels.cuda import histogram16 as cuda_moments16
    from rxrx_kernels.cuda import orient as kernels
    from rxrx_kernels.histogram.uint16 import BINS16, histogram16

    # As Numba's array: not every torch can export uint16.
    deep = stack.to(torch.int16) * 97
    wide = cuda.as_cuda_array(deep).view(np.uint16)
    codes = torch.zeros(len(deep), dtype=torch.uint8, device=deep.device)
    out = torch.empty(deep.shape, dtype=torch.float16, device=deep.device)
    kernels.orient_batch(wide, out, codes, *tables, queue)
    center, scale = (table[0].cpu().numpy()[:, None, None] for table in tables)
    site = deep[0].cpu().numpy().view(np.uint16)
    if not np.array_equal(out[0].cpu().numpy(), ((site.astype(np.float32) - center) * scale).astype(np.float16)):
        raise SystemExit("the fused kernel of 16-bit pixels is wrong")
    row("fused, 16 bits, straight, float16", deep.numel() * 4,
        lambda _: kernels.orient_batch(wide, out, codes, *tables, queue))  # fmt: skip
    shape = tuple(deep.shape[:2])
    counts = torch.zeros((*shape, BINS16), dtype=torch.int32, device=deep.device)
    sums = torch.zeros((*shape, 2), dtype=torch.int64, device=deep.device)
    extremes = torch.tensor(cuda_moments16.EXTREMES, dtype=torch.int32, device=deep.device).repeat(*shape, 1)
    unsigned = cuda.as_cuda_array(sums).view(np.uint64)

    def count(_):
        cuda_moments16.histogram16_batch(wide, counts, unsigned, extremes, queue)

    count(0)
    wanted = histogram16(site)
    same = np.array_equal(sums[0, :, 0].cpu().numpy(), wanted.sums[:, 1])
    if not same or not np.array_equal(counts[0].cpu().numpy(), wanted.counts):
        raise SystemExit("the histogram of 16-bit pixels is wrong")
    row("histogram, 16 bits", deep.numel() * 2, count)


def peers(stack: torch.Tensor, tables, row, clock) -> None:
    """Measure peers that mirror and normalise to float16."""
    center, scale = (table[:, :, None, None] for table in tables)
    wanted = ((stack[:2].flip(-1).double() - center[:2].double()) * scale[:2].double()).float()
    for name, make in PEERS.items():
        try:
            work = make()
            found = work(stack, center, scale)
        except Exception as error:
            # A peer that can't run is reported, not fatal.
            reason = (str(error).splitlines() or [""])[0]
            clock.skip(name, f"does not run here ({type(error).__name__}: {reason})")
            continue
        if found.dtype != torch.float16 or not torch.allclose(found[:2].float(), wanted, rtol=2e-3, atol=2e-3):
            raise SystemExit(f"{name} makes other batches")
        row(f"{name}, mirrored, float16", stack.numel() * 3, lambda _, work=work: work(stack, center, scale))


def _filtered(stack: torch.Tensor) -> torch.Tensor:
    """Filter the stack's rows by Paeth on the GPU: (B * C, H * (1 + W)) uint8."""
    planes = stack.reshape(-1, *stack.shape[2:])
    out = torch.empty((len(planes), planes.shape[1], planes.shape[2] + 1), dtype=torch.uint8, device=stack.device)
    out[:, :, 0] = 4
    for part, target in zip(planes.split(64), out.split(64)):
        raw = part.to(torch.int16)
        left, up, corner = (torch.zeros_like(raw) for _ in range(3))
        left[:, :, 1:], up[:, 1:], corner[:, 1:, 1:] = raw[:, :, :-1], raw[:, :-1], raw[:, :-1, :-1]
        guess = left + up - corner
        to_left, to_up, to_corner = (guess - left).abs(), (guess - up).abs(), (guess - corner).abs()
        nearer = torch.where(to_up <= to_corner, up, corner)
        paeth = torch.where((to_left <= to_up) & (to_left <= to_corner), left, nearer)
        target[:, :, 1:] = (raw - paeth).to(torch.uint8)
    return out.reshape(len(planes), -1)


def draw_inflate(rows, where):
    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    for kind, color, name in (("own", OURS, "rxrx_kernels.cuda.deflate"), ("nvcomp", SERIES[1], "nvCOMP")):
        points = [(row["streams"], row["gb_per_s"]) for row in rows if row["inflate"] == kind]
        if points:
            axes.plot(*zip(*points), "o-", color=color, label=name)
            axes.annotate(f"{points[-1][1]:.0f}", points[-1], (6, 0), textcoords="offset points", color=INK)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({row["streams"] for row in rows}), sorted({row["streams"] for row in rows}))
    axes.set_ylim(0)
    dress(axes, "Inflate on the GPU", where, xlabel="streams at once", ylabel="GB/s decoded")
    axes.legend(frameon=False, fontsize=8.5)
    return figure


def draw_others(rows, bandwidth, where):
    figure = new_figure(7.5, 1.2 + 0.34 * len(rows))
    axes = figure.subplots()
    shares = [row["share_of_copy"] * 100 for row in rows]
    colors = [THEIRS if row["kernel"].startswith(tuple(PEERS)) else OURS for row in rows]
    axes.barh(range(len(rows)), shares, color=colors, height=0.6)
    for i, row in enumerate(rows):
        axes.annotate(f"{row['gb_per_s']:,.0f} GB/s", (shares[i], i), (5, 0), textcoords="offset points", va="center",
                      color=FAINT, fontsize=8.5)  # fmt: skip
    axes.set_yticks(range(len(rows)), [row["kernel"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, max(100, *shares) * 1.2)
    dress(axes, "Kernels against the card's own copy", f"{where}; copy {bandwidth / 1e9:,.0f} GB/s",
          xlabel="per cent of the copy's bytes a second")  # fmt: skip
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = _gpu.parser(__doc__, limit=150)
    options = parser.parse_args(arguments)
    if reason := _gpu.no_gpu():
        print(f"gpu_kernels: {reason}")
        return
    size, streams, sites = SMALLEST if options.smallest else FULL
    data = _gpu.Data(options.data, 6 if options.smallest else 48, size)
    files = [[np.frombuffer(one, np.uint8) for one in site] for site in data.files(48)]
    clock = _gpu.Clock(options.limit)
    bandwidth = _gpu.copy_bandwidth()
    print(f"copy on the card: {bandwidth / 1e9:,.0f} GB/s", flush=True)
    with ThreadPoolExecutor(machine.usable_cores()) as pool:
        inflating = inflate_rows(files, (size, size), streams, pool, clock)
        others = other_rows(files, (size, size), sites, pool, bandwidth, clock)
    result = _gpu.head("gpu_kernels", "cuda", {"size": size, "limit_s": options.limit})
    result |= {"bytes_a_file": data.bytes_a_file, "copy_bytes_per_s": bandwidth,
               "inflate": inflating, "kernels": others, "skipped": clock.skipped}  # fmt: skip
    where = f"{result['card']['name']}, {size} x {size}"
    figures = {}
    if inflating:
        figures["gpu_inflate"] = draw_inflate(inflating, where)
    if others:
        figures["gpu_kernels"] = draw_others(others, bandwidth, where)
    write(result, figures, options.out)


if __name__ == "__main__":
    main()
