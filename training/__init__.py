"""How `data/` was made: the pictures the embedded models learn from, how they are trained, how good they are. Not part of the package."""
