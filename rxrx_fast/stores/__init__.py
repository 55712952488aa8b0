"""Where a site's encoded bytes are.

A store has ``read(position)``, which returns a list of 1-D uint8 arrays, one an encoded file of the site, and raises
:class:`rxrx_fast.errors.SiteError`; ``channels_per_file``; and of all of them ``image_size``, (height, width), and
``dtype``, uint8 or uint16. Where ``decodes`` is true, ``read_into(position, out, meter)`` gives the pixels themselves.

========  ==================================================
module    bytes from
========  ==================================================
``files`` image files in a folder, one or several a site
``tiff``  what a TIFF file holds, and its 16-bit pixels
========  ==================================================
"""

from rxrx_fast.stores.files import FileStore

__all__ = ["FileStore"]
