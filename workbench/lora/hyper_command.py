"""The command `workbench lora hyper`: from models, or the original's YAML file, to a folder. Nothing is computed here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.errors import ExportError, InputError, OptionError
from workbench.tensors import SavedDtype
from workbench.wording import printable


def hyper(
    models: Annotated[list[Path] | None, typer.Argument(help="The models; or none, with --config.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write; by default the config's name.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file: name, models, device, dtype, iterations, ranks.")] = None,
    ranks: Annotated[str, typer.Option(help="One for each LoRA, with commas between them.")] = "128,64,32",
    iterations: Annotated[int, typer.Option(help="Rounds of improvement after each LoRA.")] = 6,
    joint: Annotated[bool, typer.Option("--joint/--one-by-one", help="Improve all LoRAs together, or find each for itself.")] = True,
    seed: Annotated[int, typer.Option(help="Of the random directions that the search looks along.")] = 0,
    device: Annotated[str, typer.Option(help="Where to calculate: cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[SavedDtype, typer.Option(help="Of the numbers in the files.")] = "float16",
) -> None:
    """Write many models as one and a few LoRAs, with what to multiply these with for each model."""
    import workbench as wb

    options: dict[str, Any] = {"ranks": _numbers(ranks), "iterations": iterations, "device": device}
    paths = models or []
    if config is not None:
        if paths:
            raise InputError(f"{config}: has the models already; give models or --config, not both")
        from workbench.lora.hyper_config import load

        found = load(config)
        options = {"ranks": list(found.ranks), "iterations": found.iterations, "device": found.device}
        paths, dtype, out = [Path(path) for path in found.models], found.dtype, out or Path(found.name)
    if out is None:
        raise ExportError("hyper: give the folder to write (--out)")
    made = wb.lora.hyper_merge([wb.open(path) for path in paths], joint=joint, seed=seed, **options)
    typer.echo(printable(f"{made.export(out, dtype)}: {made.headline}"))


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise OptionError(f"--ranks must be whole numbers with commas between them, such as 128,64,32; got {text!r}") from None
