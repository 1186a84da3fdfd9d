"""Writes the public API as pages, from its docstrings: `python docs/api.py out/docs`, or `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc

import workbench

if __name__ == "__main__":
    for name in workbench.__all__:  # they load when first used; pdoc lists what is there
        setattr(workbench, name, getattr(workbench, name))
    pdoc.render.configure(docformat="markdown", footer_text=f"Workbench {workbench.__version__}")
    pdoc.pdoc("workbench", output_directory=Path(sys.argv[1]))
