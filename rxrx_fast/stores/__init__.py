"""Where a site's encoded bytes are.

A store has ``read(position)``, which returns a list of 1-D uint8 arrays, one an encoded file of the site, and raises
:class:`rxrx_fast.errors.SiteError`; ``channels_per_file``; and ``image_size``, the (height, width) of all of them.

========  ==================================================
module    bytes from
========  ==================================================
``files`` image files in a folder, one or several a site
========  ==================================================
"""

from rxrx_fast.stores.files import FileStore

__all__ = ["FileStore"]
