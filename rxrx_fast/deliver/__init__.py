"""How batches are delivered: producer, iterator, faults and the state of a run."""
