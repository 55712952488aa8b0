"""Where batches are finished: on the CPU or on a GPU."""
