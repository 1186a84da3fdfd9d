"""The commands `workbench family train` and `workbench family measure`; what they do is in the other modules here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.family.settings import Settings

app = typer.Typer(help="Train and measure the embedded model family.", no_args_is_help=True)


def train_all(out: Path, only: str | None = None, settings: Settings | None = None) -> None:
    """Train the whole family into `out`, or one part of it on the parts already there."""
    from workbench.family import stages

    for name in [only] if only else stages.NAMES:
        stages.run(name, out, settings or Settings())


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder to train into; parts already there are reused.")],
    only: Annotated[
        str | None, typer.Option(help="One part, such as vae, base, heart or krea; a wrong name is answered with all of them.")
    ] = None,
) -> None:
    """Train the family, or one part of it, from its seeds."""
    from workbench.family import stages

    if only and only not in stages.NAMES:
        raise typer.BadParameter(f"--only must be one of {', '.join(stages.NAMES)}, got {only}")
    train_all(out, only)


@app.command()
def measure(
    folder: Annotated[Path, typer.Option("--in", help="Folder that holds shapes-sd, shapes-flux and shapes-clip.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for quality.csv and quality.md.")] = Path("out/family"),
    only: Annotated[list[str] | None, typer.Option(help="Measure this model only; may be repeated.")] = None,
) -> None:
    """Generate pictures with every model of the family, judge them, and print the quality table."""
    from workbench.family import measure as measuring
    from workbench.family.files import Folder

    judged = measuring.measure(Folder(folder), only)
    text = measuring.report(Folder(folder), judged)
    measuring.write(out, judged, text)
    typer.echo(text)


if __name__ == "__main__":
    app()
