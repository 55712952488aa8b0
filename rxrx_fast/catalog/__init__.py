"""Which sites there are, and where their files lie.

==============  =================================================================================
module          what it holds
==============  =================================================================================
``catalog``     Catalog: one table with a row a site, to be narrowed
``layouts``     the layouts of RxRx1: recognised, and their CSV files read
``frames``      another screen's sites: a table and a template of paths
``rows``        rows that know the file and line they came from
``table``       the canonical table, and what RxRx1's labels mean
``listing``     the paths of files, and which of them are there
``presence``    which channels of each site are there
``summary``     a catalog in words
``origin``      the identity of sites: what every part of a catalog shares
==============  =================================================================================

::

    layouts or frames ──► rows ──► table ──► listing ──► origin ──► Catalog
"""

from rxrx_fast.catalog.catalog import Catalog
from rxrx_fast.catalog.table import COLUMNS

__all__ = ["COLUMNS", "Catalog"]
