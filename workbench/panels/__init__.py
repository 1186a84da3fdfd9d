"""Panels for notebooks: ipywidgets over what the rest of the package does. Names are loaded when they are used."""
