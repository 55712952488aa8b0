"""The command line: help that teaches, one-line errors, exit statuses, and what each command leaves behind."""

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from rxrx_fast import stats
from rxrx_fast.cli import train as train_cli
from rxrx_fast.synth import writer as synthetic
from rxrx_fast.viz import site

COMMANDS = ("demo", "synth", "stats", "bench", "show", "train", "doctor")

# The package's attribute of this name is the function.
cli = import_module("rxrx_fast.cli.main")


def run(capsys, *arguments):
    """Status, standard output and standard error of a command line."""
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def assert_one_line(error, *words):
    """The error is one line that begins with the program's name and says these words."""
    assert error.startswith("rxrx-fast: ") and error.endswith("\n") and error.count("\n") == 1, error
    for word in words:
        assert word in error


def test_the_installed_command_helps_at_once():
    """`rxrx-fast --help` names every command, and loads none of the heavy packages to do so."""
    program = Path(sys.executable).with_name("rxrx-fast")
    command = [program] if program.exists() else [sys.executable, "-m", "rxrx_fast.cli"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert not done.stderr
    assert all(f"    {name} " in done.stdout for name in COMMANDS)
    code = "import sys; from rxrx_fast import cli; cli.main(['bench', '-h']); print([*sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    heavy = ("torch", "nvidia.dali", "matplotlib", "numba", "pandas")
    assert not [name for name in heavy if f"'{name}'" in done.stderr]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(capsys, command):
    """Each command's help says what it does, gives an example that parses, and shows defaults."""
    status, text, _ = run(capsys, command, "--help")
    assert status == 0
    example = text.split("example: rxrx-fast ")[1].replace("\n", " ").split()
    assert example[0] == command
    assert cli._parser().parse_args(example).command == command
    description = text.split("\n\n")[1]
    assert description.count(".") + description.count(":") >= 2
    if command in ("demo", "synth", "bench"):
        assert "(default:" in text


def test_statistics_have_a_folder_to_go_to(capsys, rxrx_root, tmp_path):
    """It is asked before the first site is counted, not when the counts are to be saved."""
    status, _text, error = run(capsys, "stats", str(rxrx_root), "-o", str(tmp_path / "none" / "x.npz"))
    assert status == 2
    assert "there is no folder" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", train_cli.RECIPES)
def test_recipes_teach(capsys, recipe):
    """Each recipe's help has an example that parses, and its options are the fields of its settings."""
    status, text, _ = run(capsys, "train", recipe, "--help")
    assert status == 0
    example = text.split("example: rxrx-fast ")[1].replace("\n", " ").split()
    parsed = cli._parser().parse_args(example)
    assert (parsed.command, parsed.recipe) == ("train", recipe)
    if recipe != "leaks":
        settings = import_module(f"rxrx_fast.recipes.{recipe}").Settings
        made = train_cli._settings(settings, vars(cli._parser().parse_args(["train", recipe, "ROOT"])))
        assert made == settings("ROOT", made.out), "an option's default is not its field's"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("COMMAND", "--help")),
        (("stats",), ("ROOT", "rxrx-fast stats --help")),
        (("bench", "here", "--rounds", "0"), ("--rounds", "at least 1")),
        (("bench", "here", "--seconds", "nan"), ("--seconds", "above 0")),
        (("show", "here", "--site", "A", "--plates", "-o", "a.png"), ("--plates", "--site")),
        (("synth", "{tmp}/out", "--wells", "2"), ("wells",)),
        (("show", "{root}", "-o", "{tmp}/a.bmp"), (".png", "a.bmp")),
        (("show", "{root}", "--site", "HUVEC-01_1_B2_1", "-o", "{tmp}/a.png"), ("did you mean HUVEC-01_1_B02_1?",)),
    ],
)
def test_usage_errors(capsys, rxrx_root, tmp_path, arguments, words):
    """A mistake in the command is one line that says what is wrong, and status 2."""
    filled = [argument.format(root=rxrx_root, tmp=tmp_path) for argument in arguments]
    status, _, error = run(capsys, *filled)
    assert status == 2
    assert_one_line(error, *words)


@pytest.mark.parametrize("command", [("stats",), ("bench",), ("show", "-o", "a.png")])
def test_data_errors(capsys, tmp_path, command):
    """Data that is not there is one line that names it, and status 1."""
    status, _, error = run(capsys, command[0], tmp_path / "nowhere", *command[1:])
    assert status == 1
    assert_one_line(error, "nowhere")


def test_a_damaged_file_is_named(capsys, rxrx_root, tmp_path):
    """A truncated image stops `stats` with its name and status 1; with --on-error skip the rest is counted."""
    root = tmp_path / "data"
    shutil.copytree(rxrx_root, root)
    (root / stats.FILE_NAME).unlink(missing_ok=True)
    damaged = sorted(root.rglob("*_w3.png"))[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    status, _, error = run(capsys, "stats", root)
    assert status == 1
    assert_one_line(error, damaged.name)
    status, text, error = run(capsys, "stats", root, "--on-error", "skip")
    assert status == 1
    assert "statistics of 47 sites" in text
    assert_one_line(error, damaged.name)


def test_a_fault_of_ours_is_one_line(capsys, monkeypatch, rxrx_root, tmp_path):
    """An unforeseen exception is reported in one line as a fault of the program, and no traceback."""

    def broken(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(site, "draw_site", broken)
    status, _, error = run(capsys, "show", rxrx_root, "-o", tmp_path / "a.png")
    assert status == 1
    assert_one_line(error, "fault of rxrx-fast itself", "two lines")


@pytest.mark.parametrize(("command", "words"), [("synth", "goes on where it stopped"), ("show", "nothing was written")])
def test_interruption(capsys, monkeypatch, rxrx_root, tmp_path, command, words):
    """Ctrl-C ends a command with status 130 and one line that says what running it again does."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "generate", interrupted)
    monkeypatch.setattr(site, "draw_site", interrupted)
    arguments = ("synth", tmp_path / "out") if command == "synth" else ("show", rxrx_root, "-o", tmp_path / "a.png")
    status, _, error = run(capsys, *arguments)
    assert status == 130
    assert_one_line(error, "interrupted", words)


def test_synth_generates_what_was_asked_for(capsys, tmp_path):
    """`synth` passes its options on and tells what it made."""
    out = tmp_path / "out"
    options = [
        "--layout",
        "kaggle",
        "--experiments",
        "2",
        "--plates",
        "1",
        "--wells",
        "3",
        "--sites",
        "2",
        "--size",
        "16",
        "--seed",
        "5",
        "--workers",
        "1",
    ]
    status, text, error = run(capsys, "synth", out, *options)
    assert status == 0
    assert not error
    assert "12 sites of 6 wells on 2 plates of 2 experiments" in text
    made = json.loads((out / "synthetic.json").read_text())
    assert (made["layout"], made["size"], made["seed"], made["sites"]) == ("kaggle", 16, 5, 2)


def test_stats_prints_a_table_and_saves(capsys, rxrx_root, tmp_path):
    """`stats` writes the file it names; its table shows the file's numbers; run again it counts nothing anew."""
    path = tmp_path / "stats.npz"
    status, text, error = run(capsys, "stats", rxrx_root, "-o", path)
    assert status == 0
    assert not error
    fitted = stats.PlateStats.load(path)
    assert len(fitted) == 48
    assert str(path) in text
    frame = fitted.frame("plate")
    row = next(line for line in text.splitlines() if line.startswith(frame["plate"].iat[0]))
    assert f"{frame['mean'].iat[0]:.1f} ± {frame['std'].iat[0]:.1f}" in row
    before = fitted.counts
    assert run(capsys, "stats", rxrx_root, "-o", path, "--level", "experiment")[0] == 0
    assert (stats.PlateStats.load(path).counts == before).all()


def test_a_reader_that_leaves_is_no_error(rxrx_root, tmp_path):
    """`rxrx-fast stats ... | head -1` ends without a complaint."""
    command = [sys.executable, "-m", "rxrx_fast.cli", "stats", str(rxrx_root), "-o", str(tmp_path / "stats.npz")]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process.stdout.close()
    error = process.stderr.read().decode()
    assert process.wait(timeout=60) == 0 and not error, error
