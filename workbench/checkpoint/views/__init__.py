"""Checkpoints made of others, and what is seen when several are set side by side. Nothing is read before it is asked for."""
