"""The plan of a synthetic RxRx1: its experiments, plates and wells, and the siRNA in each well.

The plan has the real structure. A plate has 308 wells, rows B to O by columns 2 to 23. Well B02 is untreated, 30 fixed
wells have the 30 positive controls in random order, and the other 277 have treatments. The 1,108 treatments are in four
disjoint groups, one per plate. Each experiment has its own random order of groups and positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rxrx_fast.errors import UsageError
from rxrx_fast.synth.batch_effects import COLUMNS, ROWS
from rxrx_fast.synth.phenotypes import CELL_TYPES, NEGATIVE_CONTROL, POSITIVE_CONTROLS, TREATMENTS
from rxrx_fast.synth.randomness import generator

__all__ = ["CONTROL_WELLS", "REAL_EXPERIMENTS", "Parameters", "Well", "check_integer", "experiment_names", "plan"]

LAYOUTS = ("rxrx", "kaggle")
WELLS = len(ROWS) * len(COLUMNS)  # 308
UNTREATED_WELL = "B02"
CONTROL_WELLS = tuple(f"{row}{column:02d}" for row in "CFHJM" for column in (3, 7, 11, 15, 19, 22))
# RxRx1's experiments of each cell type: train, test. The test experiments are numbered after the train ones.
REAL_EXPERIMENTS = {"HUVEC": (16, 8), "RPE": (7, 4), "HEPG2": (7, 4), "U2OS": (3, 2)}


@dataclass(frozen=True)
class Parameters:
    """The parameters of a synthetic data set, as written to ``synthetic.json``; see `rxrx_fast.synth.writer.generate`.

    Raises
    ------
    UsageError
        If one is out of range.
    """

    layout: str
    experiments: tuple[str, ...]
    plates: int
    wells: int
    sites: int
    size: int
    seed: int
    strength: float = 1.0
    experiment_effect: float = 1.0
    plate_effect: float = 1.0

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise UsageError(f"layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}")
        for name in self.experiments:
            _split_name(name)
        if not self.experiments or len(set(self.experiments)) != len(self.experiments):
            raise UsageError(f"experiments must be one or more different names, got {list(self.experiments)}")
        check_integer("plates", self.plates, 1, 4)
        check_integer("wells", self.wells, 3, WELLS)
        check_integer("sites", self.sites, 1, 9)
        check_integer("size", self.size, 16, 4096)
        check_integer("seed", self.seed, 0, 2**63 - 1)
        for name in ("strength", "experiment_effect", "plate_effect"):
            _check_factor(name, getattr(self, name))


@dataclass(frozen=True)
class Well:
    """One well of the plan."""

    experiment: str
    plate: int
    well: str
    sirna: int

    @property
    def cell_type(self) -> str:
        """The first part of the experiment's name."""
        return _split_name(self.experiment)[0]

    @property
    def dataset(self) -> str:
        """``"train"`` or ``"test"``: the real split, which follows the experiment's number."""
        cell_type, number = _split_name(self.experiment)
        return "train" if number <= REAL_EXPERIMENTS[cell_type][0] else "test"

    @property
    def well_type(self) -> str:
        """``"negative_control"``, ``"positive_control"`` or ``"treatment"``."""
        if self.sirna == NEGATIVE_CONTROL:
            return "negative_control"
        return "positive_control" if self.sirna in POSITIVE_CONTROLS else "treatment"

    @property
    def well_id(self) -> str:
        """Experiment, plate and well, as in RxRx1's metadata."""
        return f"{self.experiment}_{self.plate}_{self.well}"


def experiment_names(count: int, cell_types: Sequence[str] = ()) -> list[str]:
    """Choose experiments, numbered as in RxRx1 and spread over cell types and splits.

    Fewer than four are all HUVEC, RxRx1's largest part, so that something can be learned across experiments. From four
    on, the cell types take turns. A type's second, fifth, eighth... experiment is a test one; of exactly four, the U2OS
    one is. So both splits exist from two experiments on.

    Parameters
    ----------
    count : int
        1 to 51.
    cell_types : sequence of str, optional
        Only these.

    Returns
    -------
    list of str
        Sorted names, such as ``["HUVEC-01", "HUVEC-17"]``.

    Raises
    ------
    UsageError
        If a cell type is unknown, or RxRx1 has fewer experiments.
    """
    unknown = sorted(set(cell_types) - set(REAL_EXPERIMENTS))
    if unknown:
        raise UsageError(f"cell type {unknown[0]!r}: must be among {', '.join(REAL_EXPERIMENTS)}")
    wanted = {name: splits for name, splits in REAL_EXPERIMENTS.items() if name in cell_types or not cell_types}
    check_integer("experiments", count, 1, sum(map(sum, wanted.values())))
    if not cell_types and count == len(REAL_EXPERIMENTS):
        return ["HUVEC-01", "RPE-01", "HEPG2-01", "U2OS-04"]
    queues = {
        cell_type: _numbers(*splits)
        for cell_type, splits in wanted.items()
        if cell_types or count > 3 or cell_type == "HUVEC"
    }
    names: list[str] = []
    while len(names) < count:
        for cell_type, numbers in queues.items():
            number = next(numbers, None)
            if number is not None and len(names) < count:
                names.append(f"{cell_type}-{number:02d}")
    return sorted(names)


def plan(parameters: Parameters) -> list[Well]:
    """List every well of a data set, in the order of experiment, plate and well."""
    seed, wells = parameters.seed, parameters.wells
    control_count = max(1, round((wells - 1) * len(POSITIVE_CONTROLS) / (WELLS - 1)))
    treatment_count = wells - 1 - control_count
    group_size = TREATMENTS // 4
    order = generator(seed, "groups").permutation(TREATMENTS)
    groups = [order[i * group_size : (i + 1) * group_size][:treatment_count] for i in range(4)]
    controls = POSITIVE_CONTROLS[:control_count]
    every = [f"{row}{column:02d}" for row in ROWS for column in COLUMNS]
    elsewhere = [well for well in every if well not in CONTROL_WELLS and well != UNTREATED_WELL]

    result = []
    for experiment in parameters.experiments:
        # As many groups as plates: with one plate, all experiments must have the same group, or no label would recur.
        carried = generator(seed, "plates", experiment, parameters.plates).permutation(parameters.plates)
        for plate in range(1, parameters.plates + 1):
            rng = generator(seed, "positions", experiment, plate)
            positions = {UNTREATED_WELL: NEGATIVE_CONTROL}
            positions.update(zip((CONTROL_WELLS[i] for i in rng.permutation(len(CONTROL_WELLS))), controls))
            places = (elsewhere[i] for i in rng.permutation(len(elsewhere)))
            positions.update(zip(places, map(int, groups[carried[plate - 1]])))
            result += [Well(experiment, plate, well, positions[well]) for well in sorted(positions)]
    return result


def _numbers(train: int, test: int) -> Iterator[int]:
    """Yield a cell type's experiment numbers in the order of their use: train, test, train, train, test, train..."""
    trains, tests = iter(range(1, train + 1)), iter(range(train + 1, train + test + 1))
    for i in range(3 * (train + test)):
        number = next(tests if i % 3 == 1 else trains, None)
        if number is not None:
            yield number


def _split_name(experiment: object) -> tuple[str, int]:
    match = re.fullmatch(r"([A-Z0-9]+)-(\d\d)", experiment) if isinstance(experiment, str) else None
    if not match or match[1] not in CELL_TYPES or match[2] == "00":
        raise UsageError(
            f"an experiment is named like HUVEC-01, with one of {', '.join(CELL_TYPES)}; got {experiment!r}"
        )
    return match[1], int(match[2])


def check_integer(name: str, value: object, least: int, greatest: int) -> None:
    """Raise UsageError, with the argument's name, unless the value is an integer in the closed range."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= greatest:
        raise UsageError(f"{name} must be an integer from {least} to {greatest}, got {value!r}")


def _check_factor(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10:
        raise UsageError(f"{name} must be a number from 0 to 10, got {value!r}")
