"""The parameters of the augmentation kernels: the one place that says their names, shapes, dtypes and meanings.

:class:`Augmentation` is the record that a kernel takes for one site. Each field's annotation is its :class:`Parameter`.
What is neutral (:func:`plain`), what is refused (:func:`check`), the GPU's tables
(:mod:`rxrx_kernels.augment.tables`) and the documentation (:func:`describe`) follow from these annotations.
"""

import functools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple, get_type_hints

import numpy as np
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.photometric import LUT8, LUT16

__all__ = ["PARAMETERS", "Augmentation", "Parameter", "check", "describe", "plain"]

#: Positions stay nearer than this, in pixels: in 1/256 of a pixel they, and sums of two of them, fit 32 bits.
FAR = 1 << 20
# Grey values and factors stay below this, so that nothing becomes infinite on its way.
_LARGE = 65536.0


@dataclass(frozen=True)
class Parameter:
    """One parameter of the kernels.

    Attributes
    ----------
    axes : tuple of int and str
        Lengths of the axes. "C" is the number of output channels, "L" the number of entries of a lookup table at the
        pixels' depth. Any other name stands for a free length, the same wherever it occurs. () is a plain int.
    dtype : type
        NumPy dtype.
    meaning : str
        One or two sentences.
    neutral : number or function of the number of channels
        The value that changes nothing. Unused for optional parameters.
    optional : bool
        An empty array leaves the operation out. Its named axes are then 0 long.
    least, largest : number, optional
        Limits of the values.
    shortest : int
        Least length of a free axis.
    table : type, optional
        The dtype of the GPU's table, which has a leading axis of sites. None: it is not a table of its own.
    """

    axes: tuple[int | str, ...]
    dtype: type
    meaning: str
    neutral: float | Callable[[int], np.ndarray] = 0
    optional: bool = False
    least: float | None = None
    largest: float | None = None
    shortest: int = 1
    table: type | None = None

    def empty(self, channels: int) -> np.ndarray | int:
        """Return the neutral value for ``channels`` output channels."""
        if not self.axes:
            return int(self.neutral)  # type: ignore[arg-type]  # no scalar has a function
        if callable(self.neutral):
            return np.asarray(self.neutral(channels), self.dtype)
        named = {"C": 0 if self.optional else channels}
        shape = [named.get(axis, 0) if isinstance(axis, str) else axis for axis in self.axes]
        return np.full(shape, self.neutral, self.dtype)

    def fits(self, shape: tuple[int, ...], dtype: np.dtype, lengths: dict[str, int]) -> bool:
        """Whether shape and dtype are the declared ones; ``lengths`` are those of "C" and "L"."""
        absent = self.optional and 0 in shape
        # An absent lookup table may have any number of entries.
        found = {axis: 0 for axis in lengths if axis == "C"} if absent else dict(lengths)
        wanted = [found.setdefault(axis, n) if isinstance(axis, str) else axis for axis, n in zip(self.axes, shape)]
        return dtype == self.dtype and len(shape) == len(self.axes) and list(shape) == wanted

    def describe(self) -> str:
        """Return shape and dtype as the documentation has them, such as ``(C, 2) float32, or empty``."""
        if not self.axes:
            return "int"
        axes = ", ".join(map(str, self.axes)) + ("," if len(self.axes) == 1 else "")
        return f"({axes}) {np.dtype(self.dtype).name}" + (", or empty" if self.optional else "")


class Augmentation(NamedTuple):
    """What is done to one site for one view. C is the number of output channels."""

    matrix: Annotated[
        np.ndarray,
        Parameter(
            (6,), np.int64, "Map from output to source pixels, see :func:`rxrx_kernels.augment.warp.fixed`.",
            neutral=lambda channels: warp.fixed(np.eye(2, 3)), table=np.int64,
        ),
    ]  # fmt: skip
    sampling: Annotated[
        np.ndarray,
        Parameter(
            (2,), np.int64, "Filter and border, constants of :mod:`rxrx_kernels.augment.warp`.",
            neutral=lambda channels: np.array([warp.ANTIALIAS, warp.CONSTANT]), least=0, largest=2,
        ),
    ]  # fmt: skip
    order: Annotated[
        np.ndarray,
        Parameter(
            ("C",), np.int64,
            "Source channel of each output channel; -1 for a channel that is 0 everywhere. All other parameters go by "
            "output channel.", neutral=np.arange, least=-1, table=np.int32,
        ),
    ]  # fmt: skip
    fill: Annotated[
        np.ndarray,
        Parameter(
            ("C",), np.float32, "Grey value outside of the source, with the border CONSTANT.",
            least=-_LARGE, largest=_LARGE, table=np.float32,
        ),
    ]  # fmt: skip
    center: Annotated[
        np.ndarray,
        Parameter(("C",), np.float32, "Normalised values are ``(grey value - center) * scale``.", table=np.float32),
    ]
    scale: Annotated[np.ndarray, Parameter(("C",), np.float32, "See ``center``.", neutral=1, table=np.float32)]
    lut: Annotated[
        np.ndarray,
        Parameter(
            ("C", "L"), np.float32,
            f"Lookup table from grey values to normalised ones, instead of center and scale. L is {LUT8} for 8-bit "
            f"pixels and {LUT16} for 16-bit ones, see :mod:`rxrx_kernels.augment.photometric`.",
            optional=True, table=np.float32,
        ),
    ]  # fmt: skip
    lut_log2: Annotated[
        np.ndarray,
        Parameter(
            ("C",), np.int64, "For 16-bit pixels: binary logarithm of the grey values that share an entry of ``lut``.",
            optional=True, least=0, largest=4, table=np.int32,
        ),
    ]  # fmt: skip
    box: Annotated[
        np.ndarray,
        Parameter((4,), np.int64, "Erased rectangle, ``y0, y1, x0, x1`` in output pixels.", table=np.int32),
    ]
    erase: Annotated[
        np.ndarray,
        Parameter(
            (2,), np.float32,
            "Value of erased pixels after normalisation, and standard deviation of normal noise about it.",
            table=np.float32,
        ),
    ]  # fmt: skip
    noise: Annotated[
        np.ndarray,
        Parameter(
            ("C", 2), np.float32,
            "Standard deviation of read noise in grey values, and variance of shot noise for each grey value.",
            optional=True, least=0, largest=_LARGE, table=np.float32,
        ),
    ]  # fmt: skip
    key: Annotated[np.ndarray, Parameter((2,), np.uint32, "Key of the random numbers of all noise.", table=np.uint32)]
    flat: Annotated[
        np.ndarray,
        Parameter(
            ("C", "GH", "GW"), np.float32,
            "Flat-field factors, which undo uneven illumination, at nodes from the first source pixel to the last or "
            "beyond.", optional=True, least=0, largest=_LARGE, shortest=2, table=np.float32,
        ),
    ]  # fmt: skip
    flat_log2: Annotated[
        int, Parameter((), np.int64, "Nodes of ``flat`` lie ``1 << flat_log2`` pixels apart.", least=0, largest=16)
    ]
    displacement: Annotated[
        np.ndarray,
        Parameter(
            (2, "G", "G"), np.int32,
            "Elastic deformation: displacement in x and in y at control points, in 1/256 of a source pixel.",
            optional=True, least=1 - (FAR << 8), largest=(FAR << 8) - 1, shortest=4, table=np.int32,
        ),
    ]  # fmt: skip
    blur: Annotated[
        np.ndarray,
        Parameter(
            ("T",), np.int32, "Weights of :func:`rxrx_kernels.augment.blur.gaussian`, an odd number that sum to 256.",
            optional=True, least=0, table=np.int32,
        ),
    ]  # fmt: skip


#: The specification: field of :class:`Augmentation` to its parameter.
PARAMETERS: dict[str, Parameter] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Augmentation, include_extras=True).items()
}


def describe(parameters: dict[str, Parameter]) -> str:
    """Return the parameters as the body of a numpy-style section."""
    lines = []
    for name, parameter in parameters.items():
        lines.append(f"{name} : {parameter.describe()}")
        lines += textwrap.wrap(parameter.meaning, 112, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


Augmentation.__doc__ = f"{Augmentation.__doc__}\n\nAttributes\n----------\n{describe(PARAMETERS)}\n"


def plain(channels: int, center: np.ndarray | None = None, scale: np.ndarray | None = None) -> Augmentation:
    """Return the record that leaves pixels where they are; change it with ``_replace``.

    Parameters
    ----------
    channels : int
        C, of the output.
    center, scale : (C,) array, optional
        Of the normalisation; none by default.
    """
    given = {"center": center, "scale": scale}
    changes = {name: np.asarray(value, np.float32) for name, value in given.items() if value is not None}
    return Augmentation(**{name: p.empty(channels) for name, p in PARAMETERS.items()})._replace(**changes)


_LIMITS = {
    name: (parameter.least, np.inf if parameter.largest is None else parameter.largest)
    for name, parameter in PARAMETERS.items()
    if parameter.least is not None
}


# Sites come by the thousand and their parameters' shapes by the dozen.
@functools.lru_cache(256)
def _check_kinds(kinds: tuple, channels: int, bits: int) -> None:
    """Refuse shapes and dtypes; ``kinds`` has (shape, dtype, contiguous) of each parameter, or None for an int."""
    lengths = {"C": channels, "L": LUT8 if bits == 8 else LUT16}
    for (name, parameter), kind in zip(PARAMETERS.items(), kinds):
        if kind is None and not parameter.axes:
            continue
        shape, dtype, contiguous = kind or ((), np.dtype(object), True)
        if not contiguous or not parameter.fits(shape, dtype, lengths):
            raise ValueError(f"{name} must be contiguous {parameter.describe()}, got {dtype}{shape}")
        free = [n for axis, n in zip(parameter.axes, shape) if isinstance(axis, str) and axis not in lengths]
        if 0 not in shape and free and min(free) < parameter.shortest:
            raise ValueError(f"{name} needs at least {parameter.shortest} nodes along an axis, got {shape}")


def check(a: Augmentation, source: tuple[int, ...], shape: tuple[int, ...], bits: int = 8) -> None:
    """Refuse what compiled code would read or write out of bounds for.

    Parameters
    ----------
    a : Augmentation
    source, shape : (C', H, W), (C, H', W')
        Shapes of the decoded site and of the output.
    bits : int
        8 or 16, of a source pixel.

    Raises
    ------
    ValueError
        Naming the parameter, what it must be, and what it is.
    """
    channels, height, width = shape
    sources, rows, columns = source
    kinds = tuple([(v.shape, v.dtype, v.flags.c_contiguous) if isinstance(v, np.ndarray) else None for v in a])
    _check_kinds(kinds, channels, bits)
    for name, (least, largest) in _LIMITS.items():
        value = getattr(a, name)
        if not np.size(value):
            continue
        low, high = (value.min(), value.max()) if isinstance(value, np.ndarray) else (value, value)
        largest = sources - 1 if name == "order" else largest
        # Comparisons with NaNs are false, so NaNs are refused too.
        if not least <= low <= high <= largest:
            raise ValueError(f"{name} must be from {least} to {largest}, got {low} to {high}")
    if not (0 < rows < 1 << 16 and 0 < columns < 1 << 16 and max(height, width) < 1 << 16):
        raise ValueError(f"images have 1 to 65535 pixels on a side, got {source} and {shape}")
    if bits == 16 and len(a.lut) and not len(a.lut_log2):
        raise ValueError(f"lut_log2 must be given with the lut of 16-bit pixels: {channels} numbers from 0 to 4")
    y0, y1, x0, x1 = a.box
    if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
        raise ValueError(f"box {a.box} does not lie within {height} x {width} pixels")
    m = [abs(int(value)) for value in a.matrix]
    if (
        max(m[0], m[1], m[3], m[4]) >= 1 << 48
        or max(m[0] * width + m[1] * height + m[2], m[3] * width + m[4] * height + m[5]) >= FAR << warp.FRACTION
    ):
        raise ValueError(f"matrix must lead to pixels nearer than {FAR}, in steps of less than 65536")
    if a.blur.size and (a.blur.size % 2 == 0 or a.blur.sum() != 256):
        raise ValueError(f"blur must be an odd number of weights that sum to 256, got {a.blur}")
