"""Statistics of pixels, and what normalises them.

==================  =============================================================================
module              what it holds
==================  =============================================================================
``plate_stats``     PlateStats: additive histograms by plate and channel
``counting``        one parallel pass over a catalog's sites, saved as it goes
``file``            the file that statistics are kept in, and where it lies
``normalizer``      center and scale of each site of a catalog
``frame``           statistics as a table, for people
==================  =============================================================================
"""

from rxrx_fast.stats.file import FILE_NAME, default_path
from rxrx_fast.stats.normalizer import Normalizer
from rxrx_fast.stats.plate_stats import PlateStats

__all__ = ["FILE_NAME", "Normalizer", "PlateStats", "default_path"]
