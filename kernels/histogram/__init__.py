"""Histograms of a site's channels, and the statistics that follow from them.

==============  =========================================================================================
``stacks``      the check of a stack of channels, for both depths
``blocks``      sums of square blocks of pixels, for both depths
``statistics``  mean, standard deviation, quantiles and MAD of counts
``bins``        ``Histogram``: counts of either depth, with statistics in grey values
``uint8``       counting 8-bit pixels, one bin per grey value
``uint16``      counting 16-bit pixels in 4,096 bins of a common width, with exact sums
==============  =========================================================================================
"""
