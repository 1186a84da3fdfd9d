"""Finding the best merge by eye: choices between two pictures, what they say of the merges, what to ask next. No widget is here."""
