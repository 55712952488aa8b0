"""Rotate by quarter turns, flip, normalise and cast a site's channels."""
