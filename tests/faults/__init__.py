"""Faults, tried in bulk: crashes, signals, failing disks, races and hostile files. The long run is `python -m tests.faults`."""
