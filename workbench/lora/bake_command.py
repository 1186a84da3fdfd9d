"""The command `workbench lora bake`: a model with LoRAs added, as one file. Nothing is computed here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.checkpoint.files.opening import open_input
from workbench.checkpoint.names.naming import Layout
from workbench.errors import InputError, OptionError
from workbench.tensors import SavedDtype, Space
from workbench.wording import printable

if TYPE_CHECKING:
    from workbench.checkpoint import Checkpoint


def bake(
    model: Annotated[str, typer.Argument(help="The model: a file, a folder, or an hf:// address.")],
    loras: Annotated[list[str], typer.Argument(help="LoRAs, each with its strength, or 1, after a colon: style.safetensors:0.8.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    dtype: Annotated[SavedDtype | None, typer.Option(help="Of the result; by default as in the model.")] = None,
    layout: Annotated[Layout | None, typer.Option(help="Of the result; by default as in the model.")] = None,
    device: Annotated[str, typer.Option(help="Where to calculate: cpu, cuda, cuda:1, mps.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it is there.")] = False,
) -> None:
    """Write a model with LoRAs added to it, as one file: bake model.safetensors style.safetensors:0.8 --out styled.safetensors."""
    import workbench as wb

    asked = [split_strength(text) for text in loras]
    base = _opened(model, lora=False)
    found: Checkpoint = wb.lora.apply(base, [(_opened(path, lora=True), strength) for path, strength in asked])
    found = wb.in_layout(found, layout) if layout else found
    typer.echo(printable(wb.export(found, out, dtype=dtype, device=device, overwrite=overwrite), keep="\n"))


def split_strength(text: str) -> tuple[str, float]:
    """Path and strength of `style.safetensors:0.8`; a path may have colons of its own. The strength that is not there is 1.

    Raises OptionError for a strength that is no number or lies outside what `add_delta` takes, InputError where a file's name reads
    both ways.
    """
    path, colon, end = text.rpartition(":")
    if not colon or not path:
        return text, 1.0
    if os.path.exists(text):  # the colon is the name's own
        if os.path.exists(path):
            raise InputError(f"{text}: there are files {text!r} and {path!r}; write '{text}:1' for the first, or rename one")
        return text, 1.0
    try:
        strength = float(end)
    except ValueError:
        if not os.path.exists(path):  # a drive, an address, or a file that is not there
            return text, 1.0
        raise OptionError(f"{text}: a strength is a number after the last colon, such as {path}:0.8; got {end!r}") from None
    _check(text, strength)
    return path, strength


def _check(text: str, strength: float) -> None:
    from workbench.operators import add_delta

    option = add_delta.declaration.option("strengths")
    if option.constraint.complaint(strength):
        raise OptionError(f"{text}: a strength must be {option.allowed}, got {strength:g}")


def _opened(path: str, lora: bool) -> Checkpoint:
    """The model, or the LoRA, at a path. Raises InputError for one in place of the other."""
    found = open_input(path)
    if (found.space is Space.DELTA) is not lora:
        told = "is a model and no LoRA; the model comes first, then LoRAs" if lora else "is a LoRA; the model comes first"
        raise InputError(f"{path}: {told}")
    return found
