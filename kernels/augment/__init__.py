"""Kernels that augment a site in one pass."""
