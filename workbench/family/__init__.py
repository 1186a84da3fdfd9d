"""The embedded model family: the pictures it learns from, how it is trained, and how good it is."""
