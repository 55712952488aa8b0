"""Print the line coverage of both packages, with compiled functions counted apart.

Run after the tests, from the folder with their .coverage file. Numba compiles a function from its source: its lines run
and the tracer sees none of them. Lines inside functions that a decorator of Numba compiles are therefore left out of
the percentages, and their number is printed.
"""

import ast
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parents[2]
COMPILERS = {"njit", "jit", "vectorize", "guvectorize", "intrinsic", "overload", "cfunc", "stencil"}


def compiled_lines(path: Path) -> set[int]:
    """Lines of the bodies of functions that a decorator compiles."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and any(
            COMPILERS
            & {word for part in ast.walk(mark) for word in (getattr(part, "id", ""), getattr(part, "attr", ""))}
            for mark in node.decorator_list
        ):
            lines.update(range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def main() -> None:
    data = coverage.Coverage()
    data.load()
    print("\nLine coverage (of this process tree's Python lines; compiled by Numba: run, but not counted)")
    print(f"{'package':<14}{'lines':>8}{'covered':>9}{'':>8}{'compiled':>10}")
    for name, folder in (("rxrx_fast", ROOT / "rxrx_fast"), ("rxrx_kernels", ROOT / "kernels")):
        lines = covered = compiled = 0
        for path in sorted(folder.rglob("*.py")):
            _, statements, _, missing, _ = data.analysis2(str(path))
            apart = compiled_lines(path)
            counted = set(statements) - apart
            compiled += len(apart & set(statements))
            lines += len(counted)
            covered += len(counted - set(missing))
        print(f"{name:<14}{lines:>8}{covered:>9}{covered / lines:>8.1%}{compiled:>10}")


if __name__ == "__main__":
    main()
