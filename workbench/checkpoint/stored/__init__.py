"""How tensors are stored in fewer bits than they stand for: a file for each format, and the view that decodes them."""
