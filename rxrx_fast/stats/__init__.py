"""Statistics of pixels, and the normalisation that follows from them.

===================  ==============================================================================================
file                 what it holds
===================  ==============================================================================================
``plate_stats.py``   ``PlateStats``: additive histograms by plate and channel
``fitting.py``       which sites to count, and where a data set's own statistics are
``counting.py``      one parallel pass over a catalog's sites, saved as it goes
``merging.py``       statistics of disjoint parts, added up
``file.py``          the file that statistics are saved in
``data_frame.py``    statistics as a pandas.DataFrame
``normalize.py``     ``Normalize``: the options of a normalisation, and its formulas for one histogram
``normalizer.py``    ``Normalizer``: center, scale and mapping for the sites of a catalog
``illumination.py``  uneven illumination: its estimate, and the factors that undo it
===================  ==============================================================================================

::

    sites -> counting -> PlateStats -> Normalizer, illumination factors
"""

from rxrx_fast.stats.file import FILE_NAME, default_path
from rxrx_fast.stats.normalizer import Normalizer
from rxrx_fast.stats.plate_stats import PlateStats

__all__ = ["FILE_NAME", "Normalizer", "PlateStats", "default_path"]
