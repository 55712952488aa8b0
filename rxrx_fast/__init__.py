"""RxRx1 at the speed of the model: DALI decoding, one-pass kernels, a thin PyTorch iterator."""

from rxrx_fast.catalog import Catalog
from rxrx_fast.dataset import Dataset
from rxrx_fast.errors import DataError, SiteError, UsageError
from rxrx_fast.loader import DataLoader
from rxrx_fast.normalize import Normalize
from rxrx_fast.policy import Policy
from rxrx_fast.stats import PlateStats

__version__ = "0.1.0"

__all__ = [
    "Catalog",
    "DataError",
    "DataLoader",
    "Dataset",
    "Normalize",
    "PlateStats",
    "Policy",
    "SiteError",
    "UsageError",
    "__version__",
]
