"""Build the wheel and the sdist, install each into an empty environment, and use it there.

``python check_dist.py [--out dist]``. Needs the package registry. The environments see the packages of the Python that
runs this (the dependencies), not the source folder; each gets rxrx_fast alone, from the built file.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Every module is there, both packages are typed, and a data set can be made and read.
USE = """
import importlib, pathlib, pkgutil, sys
import rxrx_fast, rxrx_kernels
here = pathlib.Path(sys.prefix).resolve()
for package in (rxrx_fast, rxrx_kernels):
    folder = pathlib.Path(package.__file__).resolve().parent
    assert here in folder.parents, f"{package.__name__} comes from {folder}"
    assert (folder / "py.typed").is_file(), f"{package.__name__} has no py.typed"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
    wanted = set(sys.argv[1 if package is rxrx_fast else 2].split())
    assert found == wanted, (package.__name__, found ^ wanted)
print(len(rxrx_fast.Catalog.read("data").table), "sites")
"""


def run(*command: object, cwd: Path) -> str:
    """Run a command; its output, or the end of this program with it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))[:300]}\n{done.stdout}{done.stderr}")
    return done.stdout


def modules(folder: Path) -> str:
    """Every Python file of a package, relative to it."""
    return " ".join(str(path.relative_to(folder)) for path in folder.rglob("*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    out = parser.parse_args().out.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tools = folder / "tools"
        run(sys.executable, "-m", "venv", tools, cwd=folder)
        run(tools / "bin/python", "-m", "pip", "install", "-q", "build==1.6.1", cwd=folder)
        # From a copy of what git knows: nothing that lies about gets in, and nothing is left behind.
        source = folder / "source"
        run("git", "clone", "-q", "--no-hardlinks", ROOT, source, cwd=folder)
        run(tools / "bin/python", "-m", "build", "--outdir", out, source, cwd=folder)
        built = sorted(out.glob("rxrx_fast-*"), key=lambda path: path.stat().st_mtime)[-2:]
        assert {path.name.rsplit(".", 1)[-1] for path in built} == {"whl", "gz"}, built
        for number, path in enumerate(built):
            place = folder / f"environment{number}"
            run(sys.executable, "-m", "venv", place, cwd=folder)
            site = Path(
                run(
                    place / "bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
                ).strip()
            )
            python, scratch = place / "bin/python", folder / f"scratch{number}"
            scratch.mkdir()
            run(python, "-m", "pip", "install", "-q", "--no-deps", path, cwd=scratch)
            (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
            run(
                place / "bin/rxrx-fast",
                "synth",
                "data",
                "--experiments",
                1,
                "--plates",
                1,
                "--wells",
                4,
                "--size",
                64,
                cwd=scratch,
            )
            printed = run(python, "-c", USE, modules(source / "rxrx_fast"), modules(source / "kernels"), cwd=scratch)
            print(f"{path.name}: installed and used, {printed.strip()}")


if __name__ == "__main__":
    main()
