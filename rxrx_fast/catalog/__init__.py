"""Which sites there are, and where their files lie.

=======================  ==========================================================================================
file                     what it holds
=======================  ==========================================================================================
``catalog.py``           ``Catalog``: one table with a row a site, and its narrowing
``recognition.py``       ``read_root``: which layout a folder has
``root.py``              ``Root``: the folder that layouts look into
``layout.py``            ``Layout``: how files are named; ``DatasetLayout``: also recognised and read; the registry
``layouts/``             the layouts, a file each; ``custom.py`` reads a frame and a template
``rows.py``              ``Rows`` of CSV files that know their file and line
``table.py``             the canonical table, and the labels of RxRx1
``file_table.py``        ``FileTable``: the paths of a table's files
``listing.py``           which of those files are on the disk
``completion.py``        the table with what the disk and all rows together add
``presence.py``          ``Presence``: which channels of each site were found
``treatment_groups.py``  which plates carry the same treatments
``origin.py``            ``Origin``: the codes and numbers that all parts of a catalog share
``summary.py``           a catalog described in text
=======================  ==========================================================================================

::

    Root -> layout -> Rows -> canonical table -> listing -> Origin -> Catalog
"""

from rxrx_fast.catalog.catalog import Catalog
from rxrx_fast.catalog.table import COLUMNS

__all__ = ["COLUMNS", "Catalog"]
