"""Inflate (RFC 1950, RFC 1951) on the CPU."""
