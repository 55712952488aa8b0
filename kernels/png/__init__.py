"""PNG files: container checks, decoding, row filters."""
