"""The log of a run: a CSV file always, TensorBoard where it is installed."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from rxrx_fast.errors import DataError

__all__ = ["RunLog"]


class RunLog:
    """Rows of numbers by step, in ``log.csv`` of a run's folder, and as TensorBoard's scalars.

    A run that goes on from a checkpoint drops what was logged after it, so that the file reads as if the run had never
    stopped.

    Parameters
    ----------
    folder : path
    step : int
        Rows up to this step are kept.
    write : bool
        False on all ranks but the first.
    """

    def __init__(self, folder: str | os.PathLike, step: int = 0, write: bool = True):
        self._path, self._write = Path(folder) / "log.csv", write
        self._names: list[str] = []
        self._board = None
        if not write:
            return
        rows = self.read(self._path) if self._path.exists() else []
        self._rows = [row for row in rows if int(row["step"]) <= step]
        self._rewrite()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    @staticmethod
    def read(path: str | os.PathLike) -> list[dict[str, str]]:
        """The rows of a log, as texts."""
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if rows and "step" not in rows[0]:
            raise DataError(f"{path} is no log of a training run: it has no column 'step'; move it away")
        return rows

    def _rewrite(self) -> None:
        names = dict.fromkeys(name for row in self._rows for name in row)
        self._names = ["step", *(name for name in names if name != "step")]
        with open(self._path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._names, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)

    def add(self, step: int, **values: float | str) -> None:
        """One row."""
        if not self._write:
            return
        row = {"step": step, **{n: f"{v:.7g}" if isinstance(v, float) else v for n, v in values.items()}}
        self._rows.append(row)
        if set(row) <= set(self._names):
            with open(self._path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._names, restval="", lineterminator="\n").writerow(row)
        else:
            self._rewrite()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._board is not None:
            self._board.close()
