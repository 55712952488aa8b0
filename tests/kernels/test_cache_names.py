"""Kernels in Numba's cache: no two share the files that their code is kept in."""

import importlib
from collections import defaultdict
from pathlib import Path

import rxrx_kernels


def test_every_cached_kernel_has_a_cache_index_of_its_own():
    """Kernels of one name would race for it in concurrent first runs, and one could be run for the other."""
    owners = defaultdict(set)
    root = Path(rxrx_kernels.__file__).parent
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] == "cuda" or parts[-1] == "__init__":
            continue
        for value in vars(importlib.import_module(".".join(("rxrx_kernels", *parts)))).values():
            file = getattr(getattr(value, "_cache", None), "_cache_file", None)
            if file is not None:
                owners[value._cache._impl.locator.get_cache_path(), file._index_name].add(id(value))
    assert len(owners) > 20
    assert not {name: len(kernels) for name, kernels in owners.items() if len(kernels) > 1}
