"""The specification of the kernels' parameters: the record, the checks, the GPU's tables and the documentation."""

import os
import subprocess
import sys

import numpy as np
import pytest
from rxrx_kernels.augment.parameters import PARAMETERS, Augmentation, check, describe, plain
from rxrx_kernels.augment.tables import TABLES, Tables, stack_augmentations

SOURCE, OUTPUT = (3, 20, 30), (2, 16, 24)


def test_record_tables_and_documentation_are_the_specification():
    """Every parameter is a field, is documented with its shape, and has a table of its own or a switch."""
    assert tuple(PARAMETERS) == Augmentation._fields
    assert describe(PARAMETERS) in Augmentation.__doc__
    for name, parameter in PARAMETERS.items():
        assert f"{name} : {parameter.describe()}" in Augmentation.__doc__
        assert (name in TABLES) == (parameter.table is not None)
    assert Tables._fields == tuple(TABLES)
    tables = stack_augmentations([plain(2)], SOURCE, OUTPUT[1:])
    for array, parameter in zip(tables, TABLES.values()):
        assert array.dtype == parameter.dtype
        assert array.ndim == len(parameter.axes)


def test_plain_is_neutral_and_accepted():
    """The neutral record fits its own specification at both depths."""
    for bits in (8, 16):
        check(plain(2), SOURCE, OUTPUT, bits)
    for name, parameter in PARAMETERS.items():
        value = getattr(plain(2), name)
        assert np.asarray(value).dtype == parameter.dtype
        assert np.asarray(value).size == 0 or not parameter.optional


@pytest.mark.parametrize("name", [name for name, parameter in PARAMETERS.items() if parameter.axes])
def test_another_shape_or_dtype_is_refused(name):
    """The message names the parameter and says what it must be."""
    value = getattr(plain(2), name)
    for wrong in (value.astype(np.complex64), value[None], np.zeros((9,) * value.ndim, value.dtype)[..., ::2]):
        with pytest.raises(ValueError, match=f"^{name} must be contiguous .*{np.dtype(PARAMETERS[name].dtype)}"):
            check(plain(2)._replace(**{name: wrong}), SOURCE, OUTPUT)


def test_a_second_process_compiles_nothing():
    """The loop of both depths is loaded from Numba's cache by the next process."""
    script = """
import numpy as np
from rxrx_kernels.augment.site import augment_site, plain
for kind in (np.uint8, np.uint16):
    augment_site(np.zeros((1, 16, 16), kind), np.zeros((1, 16, 16), np.float32), plain(1))
"""
    environment = os.environ | {"NUMBA_DEBUG_CACHE": "1"}
    told = [
        subprocess.run(
            [sys.executable, "-P", "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    assert "data loaded" in told[1].stdout
    assert "data saved" not in told[1].stdout
