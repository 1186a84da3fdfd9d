"""One script for each peer, run by the Python of the peers' own environment; nothing here is imported by the benchmark."""
