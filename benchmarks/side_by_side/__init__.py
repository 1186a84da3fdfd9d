"""Every operator and every peer, on the same files, beside the least that a disk allows. `python -m benchmarks` runs it."""
