"""The ``rxrx-fast`` command: parsing, exit statuses and one-line errors. The work is done in the modules it calls.

Nothing heavy is imported before a subcommand runs, so that ``--help`` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Sequence

from rxrx_fast.cli import train as train_cli
from rxrx_fast.errors import DataError, UsageError

__all__ = ["main"]

_OK, _DATA, _USAGE, _INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        By default those of the process.

    Returns
    -------
    int
        The exit status: 0; 1 if the data is at fault; 2 if the command is; 130 if interrupted.
    """
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as end:  # --help and --version, or a usage error that _Parser has already told
        return end.code if isinstance(end.code, int) else _USAGE
    options.line = shlex.join(["rxrx-fast", *(sys.argv[1:] if arguments is None else arguments)])
    with warnings.catch_warnings():
        warnings.showwarning = _note
        try:
            return options.run(options) or _OK
        except UsageError as error:
            return _fail(_USAGE, str(error))
        except DataError as error:
            return _fail(_DATA, str(error))
        except KeyboardInterrupt:
            return _fail(_INTERRUPTED, f"interrupted; {options.again}")
        except BrokenPipeError:
            # The reader of our output left, as `head` does. Python would complain once more while it shuts down.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _OK
        except (OSError, MemoryError) as error:
            return _fail(_DATA, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        except Exception as error:
            if os.environ.get("RXRX_FAST_DEBUG"):
                raise
            what = f"{type(error).__name__}: {error}"
            return _fail(_DATA, f"a fault of rxrx-fast itself: {what}; RXRX_FAST_DEBUG=1 shows where, please report it")


def _fail(status: int, message: str) -> int:
    print("rxrx-fast: " + " ".join(message.split()), file=sys.stderr)
    return status


def _note(message, *_, **__) -> None:
    print("rxrx-fast: note: " + " ".join(str(message).split()), file=sys.stderr)


# ----------------------------------------------------------------------------------------------------------- commands


def _demo(options) -> None:
    from rxrx_fast.cli import demo

    demo.run(options.out, threads=options.threads, quiet=options.quiet)


def _synth(options) -> None:
    from rxrx_fast.synth import writer as synthetic
    from rxrx_fast.synth.design import experiment_names

    root = synthetic.generate(
        options.out,
        layout=options.layout,
        experiments=experiment_names(options.experiments, options.cell_types),
        plates=options.plates,
        wells=options.wells,
        sites=options.sites,
        size=options.size,
        seed=options.seed,
        strength=options.strength,
        experiment_effect=options.experiment_effect,
        plate_effect=options.plate_effect,
        workers=options.workers,
        quiet=options.quiet,
    )
    from rxrx_fast.catalog import Catalog

    print(Catalog.read(root).summary())


def _stats(options) -> int:
    from pathlib import Path

    from rxrx_fast.catalog import Catalog
    from rxrx_fast.stats import PlateStats, default_path
    from rxrx_fast.viz.statistics_table import statistics_table

    catalog = Catalog.read(options.root, progress=not options.quiet)
    print(catalog.summary())
    path = default_path(catalog.root) if options.output is None else Path(options.output)
    if options.output is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.parent.is_dir():
        raise UsageError(f"-o {path}: there is no folder {path.parent}")
    stats = PlateStats.fit(
        catalog, path=path, num_threads=options.threads, on_error=options.on_error, quiet=options.quiet
    )
    stats.save(path)
    level = options.level or ("plate" if len(stats.plates) <= 16 else "experiment")
    print(f"\n{statistics_table(stats, level)}\n\nstatistics of {len(stats):,} sites are in {path}")
    for site_id, fault_path, reason in stats.faults:
        _fail(_DATA, f"site {site_id}: {fault_path}: {reason}")
    return _DATA if stats.faults else _OK


def _bench(options) -> None:
    from rxrx_fast import bench

    result = bench.run(
        options.root,
        peers=options.peers,
        device=options.device,
        dtype=options.dtype,
        sites=options.sites,
        batch_size=options.batch_size,
        threads=options.threads,
        rounds=options.rounds,
        seconds=options.seconds,
        quiet=options.quiet,
    )
    result["command"] = options.line
    print(bench.table(result))
    if options.json:
        print(f"results are in {bench.write_json(result, options.json)}")
    if options.plot:
        print(f"the chart is in {bench.draw(result, options.plot)}")


def _show(options) -> None:
    from rxrx_fast.catalog import Catalog
    from rxrx_fast.viz.augmented import draw_augmented
    from rxrx_fast.viz.plates import draw_plates
    from rxrx_fast.viz.site import draw_site

    if options.plates and options.site:
        raise UsageError("--plates chooses its sites itself: leave --site out")
    catalog = Catalog.read(options.root, progress=not options.quiet)
    if options.plates:
        path = draw_plates(catalog, options.output, quiet=options.quiet)
    elif options.augment:
        path = draw_augmented(catalog, options.output, options.augment, site_id=options.site, seed=options.seed)
    else:
        path = draw_site(catalog, options.output, site_id=options.site)
    print(f"drew {path}")


def _train(options) -> None:
    train_cli.run(options)


def _doctor(options) -> int:
    from rxrx_fast.cli import doctor

    findings = doctor.examine()
    print(doctor.as_json(findings) if options.json else doctor.as_text(findings))
    return _OK if findings["ready"] else _DATA


# ------------------------------------------------------------------------------------------------------------ parsing


class _Parser(argparse.ArgumentParser):
    """Tells an error in one line, with where to look."""

    def error(self, message: str):
        self.exit(_USAGE, f"rxrx-fast: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rxrx-fast",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Feeds PyTorch models with RxRx1 microscopy images. `rxrx-fast demo` needs no data: start there.",
        epilog="examples:\n"
        "  rxrx-fast demo                      everything at once, on generated data, in about two minutes\n"
        "  rxrx-fast stats data/rxrx1          statistics that normalise each plate, kept beside the data\n"
        "  rxrx-fast bench data/rxrx1 --peers  how fast this machine loads, against torch, DALI and others\n\n"
        "`rxrx-fast COMMAND --help` explains a command. Exit status: 0; 1 if data is at fault, 2 if the command is.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)

    demo = _command(
        commands, "demo", _demo, "the main job, without any data of your own",
        "Generates a small RxRx1, fits its statistics, streams it with plate normalisation and augmentation, races "
        "the usual ways of loading it, and draws pictures. Every number it prints is measured while you watch. "
        "Takes about two minutes on two cores and 30 MB of disk; interrupted, it goes on where it stopped.",
        "rxrx-fast demo --out /tmp/rxrx_demo", resumes=True,
    )  # fmt: skip
    demo.add_argument("--out", metavar="DIR", default="rxrx_fast_demo", help="folder for data and pictures")
    _add_threads(demo)

    synth = _command(
        commands, "synth", _synth, "generate an RxRx1 of any size",
        "Writes a data set with the structure of the real one: its folders, CSV files, plates, controls and batch "
        "effects, with pictures drawn from a seed. A site takes about 0.4 MB at 512 pixels, so the defaults, 9,856 "
        "sites, take 4 GB and hours on a few cores: choose fewer wells to try things out. Interrupted, it goes on "
        "where it stopped.",
        "rxrx-fast synth /tmp/rxrx1 --experiments 4 --plates 2 --wells 12", resumes=True,
    )  # fmt: skip
    synth.add_argument("out", metavar="OUT", help="a new or empty folder, or one of an interrupted run")
    synth.add_argument("--layout", choices=("rxrx", "kaggle"), default="rxrx", help="whose folders and CSV files")
    synth.add_argument("--experiments", metavar="N", type=int, default=4, help="experiments, 1 to 51")
    synth.add_argument("--cell-types", metavar="NAME", nargs="+", default=(),
                       help="of these alone: HUVEC, RPE, HEPG2, U2OS (default: all)")  # fmt: skip
    synth.add_argument("--plates", metavar="N", type=int, default=4, help="plates an experiment, 1 to 4")
    synth.add_argument("--wells", metavar="N", type=int, default=308, help="wells a plate, 3 to 308")
    synth.add_argument("--sites", metavar="N", type=int, default=2, help="sites a well")
    synth.add_argument("--size", metavar="PX", type=int, default=512, help="pixels on a side")
    synth.add_argument("--seed", metavar="N", type=int, default=0, help="another seed, another data set")
    synth.add_argument("--strength", metavar="X", type=float, default=1.0, help="of siRNAs, relative to subtle")
    synth.add_argument("--experiment-effect", metavar="X", type=float, default=1.0,
                       help="how much experiments differ, relative to RxRx1's")  # fmt: skip
    synth.add_argument("--plate-effect", metavar="X", type=float, default=1.0,
                       help="how much plates of one experiment differ, relative to RxRx1's")  # fmt: skip
    synth.add_argument("--workers", metavar="N", type=_positive, help="processes (default: one a core)")

    stats = _command(
        commands, "stats", _stats, "fit the statistics that normalise each plate",
        "Counts the pixel values of every complete site, once, by plate and channel. Means, deviations, medians and "
        "every normalisation follow from these counts; datasets find the file by themselves. Saved every minute and "
        "when interrupted, and then taken up again.",
        "rxrx-fast stats data/rxrx1 -o rxrx1_stats.npz", resumes=True,
    )  # fmt: skip
    _add_root(stats)
    stats.add_argument(
        "-o", "--output", metavar="FILE",
        help="where to save (default: ROOT/rxrx_fast_stats.npz; in ~/.cache if ROOT is read-only)",
    )  # fmt: skip
    stats.add_argument("--level", choices=("plate", "experiment", "cell_type", "global"),
                       help="rows of the printed table (default: plate, or experiment from 17 plates on)")  # fmt: skip
    stats.add_argument("--on-error", choices=("raise", "skip"), default="raise",
                       help="stop at an unreadable site, or list it at the end")  # fmt: skip
    _add_threads(stats)

    bench = _command(
        commands, "bench", _bench, "measure loading speed, against others if you like",
        "Streams plate-normalised, jittered, flipped and turned batches and reports sites a second. With "
        "--peers the same work runs through torch's DataLoader with cv2 and with Pillow, through plain DALI, and "
        "through SPDL, WebDataset, LitData and MONAI where they are installed, taking turns in one run, after a check "
        "that all of them deliver the same pixels. Then come the shares of our threads' time: reading, decoding, "
        "fusing, waiting, and how much of it they explain.",
        "rxrx-fast bench data/rxrx1 --peers --json race.json --plot race.png",
    )  # fmt: skip
    _add_root(bench)
    bench.add_argument("--peers", action="store_true", help="race the other ways of loading as well")
    bench.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where batches are delivered")
    bench.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of everyone's batches")
    bench.add_argument("--json", metavar="FILE", help="write results, machine and data as JSON")
    bench.add_argument("--plot", metavar="FILE", help="draw a bar chart")
    bench.add_argument("--sites", metavar="N", type=_positive, default=1024,
                       help="at most this many sites, spread over the data; repeated as often as needed")  # fmt: skip
    bench.add_argument("--batch-size", metavar="N", type=_positive, default=32, help="sites a batch")
    bench.add_argument("--rounds", metavar="N", type=_positive, default=3, help="rounds, in which all take turns")
    bench.add_argument("--seconds", metavar="S", type=_seconds, default=5.0, help="about how long a turn takes")
    _add_threads(bench)

    show = _command(
        commands, "show", _show, "draw a site, or a well across plates",
        "Draws the six channels of a site and their customary colour composite, or with --plates one perturbation on "
        "several plates before and after plate normalisation, all with the same display range: the batch effect, "
        "and what is left of it. With --augment, the site as a policy augments it.",
        "rxrx-fast show data/rxrx1 --site HUVEC-01_1_B02_1 -o site.png",
    )  # fmt: skip
    _add_root(show)
    show.add_argument("--site", metavar="SITE_ID", help="a site's name (default: the first complete site)")
    what = show.add_mutually_exclusive_group()
    what.add_argument("--augment", metavar="NAME", help="the site under draws of a policy, such as deepnoise-hard")
    show.add_argument("--seed", metavar="N", type=int, default=0, help="of those draws")
    what.add_argument("--plates", action="store_true", help="one perturbation across plates, before and after")
    show.add_argument("-o", "--output", metavar="FILE", required=True, help="a .png, .jpg, .svg or .pdf file")

    train = _command(
        commands, "train", _train, "train networks: the RxRx1 task, corrections side by side, DeepNoise",
        "Recipes for the systems that the loader was made for. Each is a short file of plain PyTorch under "
        "rxrx_fast/recipes, to be read and changed. docs/recipes.md says what each does and where it comes from.",
        "rxrx-fast train classify data/rxrx1 --correction plate --epochs 60", resumes=True,
    )  # fmt: skip
    train_cli.add_options(train, _Help, _positive)

    doctor = _command(
        commands, "doctor", _doctor, "what this machine has, and which path each stage will take",
        "Lists cores, memory, GPUs and the builds of the libraries in use, then says for each stage of loading where "
        "it will run and why. Exit status 1 if something keeps the main path from running, with what to do.",
        "rxrx-fast doctor --json",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="the same as JSON")
    return parser


def _command(commands, name, run, short, long, example, resumes=False) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=short, description=long, epilog=f"example: {example}", formatter_class=_Help, allow_abbrev=False
    )
    again = "the same command goes on where it stopped" if resumes else "nothing was written"
    parser.set_defaults(run=run, again=again)
    if name not in ("doctor", "train"):
        parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
    return parser


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not those that say nothing: switches, required arguments and those explained in the text."""

    def _get_help_string(self, action):
        text = action.help or ""
        if action.default in (None, False, argparse.SUPPRESS) or "(default" in text:
            return text
        return f"{text} (default: %(default)s)"


def _add_root(parser) -> None:
    parser.add_argument("root", metavar="ROOT", help="the data set's folder, in any layout of RxRx1")


def _add_threads(parser) -> None:
    parser.add_argument("--threads", metavar="N", type=_positive, help="threads or workers (default: one a core)")


def _positive(text: str) -> int:
    value = int(text) if text.strip().isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0")
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rxrx-fast")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
