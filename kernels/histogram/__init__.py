"""Histograms and moments of a site's channels."""
