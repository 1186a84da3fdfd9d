"""Where a file comes from: what the headers of each program say of it, one module a kind, and the tree that they make together."""
