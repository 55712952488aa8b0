"""Inflate zlib streams on the CPU (RFC 1950, RFC 1951).

==============  =======================================================================================
``libdeflate``  libdeflate's C functions for compiled code: zlib streams, CRC-32, Adler-32
``huffman``     tables that decode several symbols per lookup
``state``       the state of a stream that is being inflated, and its bit buffer
``symbols``     the loop over the symbols of two streams, which takes most of the time
``blocks``      block headers, stored blocks, and the stream's end
``pair``        two streams at once: the interface of our own inflater
==============  =======================================================================================
"""
