"""Weights on disk and on the hub: opening, reading, hashing, writing."""
