"""Searching for the merge that draws best: from a space of options to a merge, and how sure it is."""
