"""What every room may use: threads, recycled memory, processor cores, clocks, progress bars, counter-based random numbers."""
