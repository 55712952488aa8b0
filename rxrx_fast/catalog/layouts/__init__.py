"""The layouts in which data sets lie on a disk, a file each.

==================  =================  ==================================================  ============================
file                layout             recognised by                                       one file of a site
==================  =================  ==================================================  ============================
``wilds.py``        ``wilds``          ``metadata.csv``, and an image without a channel    ``images/EXP/PlateN/
                                       in its name; without any image, the file            WELL_sS.png``, channels 1
                                       ``RELEASE_v1.0.txt`` or a row of split ``val``      to 3
``rxrx_ai.py``      ``rxrx.ai``        ``metadata.csv``                                    ``images/EXP/PlateN/
                                                                                           WELL_sS_wC.png``
``kaggle_2023.py``  ``kaggle-2023``    ``train.csv`` or ``test.csv``; the first siRNA is   ``{train,test}/EXP/PlateN/
                                       a name, such as ``sirna_250``                       WELL_sS_wC.png``
``kaggle_2019.py``  ``kaggle-2019``    ``train.csv`` or ``test.csv``                       as 2023
``custom.py``       ``custom``         never: made by ``Catalog.from_frame``               as its template says
==================  =================  ==================================================  ============================

``metadata_csv.py`` and ``kaggle.py`` hold what two layouts share.

An image outweighs all other evidence, because the images will be read. A Kaggle root with ``test.csv`` alone has no
siRNA that tells its edition. It is called 2019; the editions differ in their labels only.

To add a layout, add a file here that subclasses :class:`rxrx_fast.catalog.layout.DatasetLayout` and ends in
``register(...)``. Every file of this folder is imported, in alphabetical order.
"""

import importlib
import pkgutil

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
