"""Where the files lie that come with the project but not with the package: the embedded models, the notebooks."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
FAMILY = DATA / "shapes-sd" / "config"  # the pipeline of the models that come with the project
FLUX_PAIR = DATA / "shapes-flux"
NOTEBOOKS = ROOT / "notebooks"
