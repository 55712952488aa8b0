"""RxRx1 at the speed of the model: DALI decoding, one-pass kernels, a thin PyTorch iterator."""

from importlib import import_module

__version__ = "0.1.0"

# Names are imported when they are first used: the command line's help and the processes that draw synthetic images
# then do without torch, whose import takes seconds.
_HOMES = {
    "Catalog": "catalog",
    "DataError": "errors",
    "DataLoader": "loader",
    "Dataset": "dataset",
    "Normalize": "stats.normalize",
    "PlateStats": "stats",
    "Policy": "augment.policy",
    "SiteError": "errors",
    "StalledError": "errors",
    "UsageError": "errors",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'rxrx_fast' has no attribute {name!r}")
    value = getattr(import_module(f"rxrx_fast.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
