"""Decode PNG files of grayscale channels (PNG specification, 3rd edition).

=============  =========================================================================================
``container``  header and chunks of a file in Python: ``Header``, ``header``, ``verify``, ``PngError``
``status``     what can be wrong with a file, as numbers for compiled code, and in words
``chunks``     the compiled walk over a file's chunks
``unfilter``   row filters, undone many rows at a time
``decode``     the compiled loop over a site's files
``files``      the interface: ``decode_site`` and ``decode_files``
``gather``     checked files' compressed image data in one buffer, for a GPU
=============  =========================================================================================
"""
