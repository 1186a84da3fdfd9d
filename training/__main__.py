"""The command `python -m training`, which makes what lies in `data/`; what it does is in `stages`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.settings import Settings


def train(
    out: Annotated[Path, typer.Option(help="Folder to train into; parts already there are reused.")],
    only: Annotated[
        str | None, typer.Option(help="One part, such as vae, base, heart, krea or sdxl; a wrong name is answered with all of them.")
    ] = None,
) -> None:
    """Train the embedded models, or one part of them, from their seeds."""
    from training import stages

    if only and only not in stages.NAMES:
        raise typer.BadParameter(f"--only must be one of {', '.join(stages.NAMES)}, got {only}")
    for name in [only] if only else stages.NAMES:
        stages.run(name, out, Settings())


if __name__ == "__main__":
    typer.run(train)
