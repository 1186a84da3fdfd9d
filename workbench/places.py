"""Where the files lie that come with a clone of the project but not with the package: the embedded models, the notebooks."""

from __future__ import annotations

from pathlib import Path

from workbench.errors import NotInCloneError

ROOT = Path(__file__).resolve().parent.parent  # the clone, where the package was installed with `pip install -e .`
DATA = ROOT / "data"
FAMILY = DATA / "shapes-sd" / "config"  # the pipeline of the models that come with the project
FLUX_PAIR = DATA / "shapes-flux"
NOTEBOOKS = ROOT / "notebooks"


def in_clone(path: Path, instead: str = "") -> Path:
    """`path`, if it is there; `instead` says what else a caller can do. Raises NotInCloneError where the package lies without its clone."""
    if not path.exists():
        raise NotInCloneError(
            f"{path}: is not there; the embedded models and the notebooks come with a clone of the repository, not with an installed "
            f"package: {instead and f'{instead}, or '}clone the repository and `pip install -e .` in it"
        )
    return path
