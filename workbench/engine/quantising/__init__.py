"""How tensors are written: rounded to a dtype, or quantised. Which tensor is written how is decided here too; files are not known."""
