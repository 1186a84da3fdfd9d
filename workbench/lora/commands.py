"""The commands `workbench lora ...`: what the functions of this package do, from files to files. Nothing is computed here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.errors import ExportError, InputError, OptionError
from workbench.lora.bake_command import bake
from workbench.lora.formats import export
from workbench.lora.hyper_command import hyper
from workbench.lora.module_names import Format
from workbench.tensors import SavedDtype
from workbench.untrusted import Refused, parse_yaml
from workbench.wording import printable

if TYPE_CHECKING:
    from workbench.checkpoint.views.low_rank import LowRank

app = typer.Typer(no_args_is_help=True)  # its help is in `cli`, which shows it before this module is imported
app.command()(hyper)
app.command()(bake)

Out = Annotated[Path, typer.Option(help="The safetensors file to write.")]
Form = Annotated[
    Format, typer.Option(help="Whose names are in the file: kohya's, which most programs read; diffusers' (peft); ComfyUI's; the authors'.")
]
Dtype = Annotated[SavedDtype, typer.Option(help="Of the numbers in the file.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it is there.")]
Rank = Annotated[int | None, typer.Option(help="Directions of each tensor.")]
TargetError = Annotated[float | None, typer.Option(help="Of each tensor: what is missed over its change, from 0 to 1.")]
MaxBytes = Annotated[int | None, typer.Option(help="Of the file; shared out where they buy most.")]


@app.command()
def extract(
    tuned: Annotated[Path, typer.Argument(help="The model that was trained.")],
    base: Annotated[Path, typer.Argument(help="The model that it was trained from.")],
    out: Out,
    rank: Rank = None,
    target_error: TargetError = None,
    max_bytes: MaxBytes = None,
    include: Annotated[list[str] | None, typer.Option(help="A component or a pattern of tensor names; may be repeated.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Keep norms and biases too, as they are.")] = False,
    format: Form = "kohya",
    dtype: Dtype = "float16",
    overwrite: Overwrite = False,
) -> None:
    """Write what a model learned on top of its base as a LoRA, and say how much of it that holds."""
    import workbench as wb

    _check(out, overwrite)
    limits = {"rank": rank, "target_error": target_error, "max_bytes": max_bytes}
    found = wb.lora.extract(wb.open(tuned), wb.open(base), **limits, include=include, whole=whole, dtype=dtype)  # type: ignore[arg-type]
    _write(found, out, format, dtype, overwrite)


@app.command()
def merge(
    loras: Annotated[list[Path], typer.Argument(help="LoRA files.")],
    out: Out,
    strengths: Annotated[str, typer.Option(help="One number, or one for each LoRA: 1,0.5")] = "1",
    method: Annotated[
        str, typer.Option(help="linear (the sum), ties, dare_linear, dare_ties, breadcrumbs, tsv_merge, iso_c, ...")
    ] = "linear",
    option: Annotated[list[str] | None, typer.Option(help="One of the method's, such as density=0.3; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="For methods that draw at random.")] = 0,
    rank: Rank = None,
    target_error: TargetError = None,
    max_bytes: MaxBytes = None,
    format: Form = "kohya",
    dtype: Dtype = "float16",
    overwrite: Overwrite = False,
) -> None:
    """Write one LoRA that does what several do together, merged by any method; without a limit it is exact."""
    import workbench as wb

    _check(out, overwrite)
    numbers = _numbers(strengths)
    limits = {"rank": rank, "target_error": target_error, "max_bytes": max_bytes, "dtype": dtype}
    found = wb.lora.merge(
        [_opened(path) for path in loras],
        numbers[0] if len(numbers) == 1 else numbers,
        method=method,
        seed=seed,
        **limits,  # type: ignore[arg-type]
        **_options(option or []),
    )
    _write(found, out, format, dtype, overwrite)


@app.command()
def resize(
    lora: Annotated[Path, typer.Argument(help="A LoRA file.")],
    out: Out,
    rank: Rank = None,
    target_error: TargetError = None,
    max_bytes: MaxBytes = None,
    format: Form = "kohya",
    dtype: Dtype = "float16",
    overwrite: Overwrite = False,
) -> None:
    """Write a LoRA in fewer directions, the strongest of each tensor, and say what is missed."""
    import workbench as wb

    _check(out, overwrite)
    found = wb.lora.resize(_opened(lora), rank=rank, target_error=target_error, max_bytes=max_bytes, dtype=dtype)
    _write(found, out, format, dtype, overwrite)


@app.command()
def convert(
    lora: Annotated[Path, typer.Argument(help="A LoRA file, or a folder of PEFT's.")],
    out: Out,
    format: Form = "kohya",
    base: Annotated[Path | None, typer.Option(help="A model that it is for, where its own names do not tell.")] = None,
    dtype: Dtype = "float16",
    overwrite: Overwrite = False,
) -> None:
    """Write a LoRA in the names of other programs; the change that it makes stays the same."""
    import workbench as wb

    _check(out, overwrite)
    found = _opened(lora)
    path = export(found, out, format=format, dtype=dtype, base=wb.open(base) if base else None, overwrite=overwrite)
    typer.echo(printable(f"{path}: {path.stat().st_size / 1e6:.3g} MB; {len(found)} changes in {format!r} names"))


def _opened(path: Path) -> LowRank:
    """The LoRA in a file. Raises InputError for a file that is none."""
    import workbench as wb
    from workbench.checkpoint.views.low_rank import LowRank

    found = wb.open(path)
    if not isinstance(found, LowRank):
        raise InputError(f"{path}: is a model and no LoRA; `workbench lora extract` makes one of it and its base")
    return found


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise OptionError(f"--strengths must be numbers with commas between them, such as 1,0.5; got {text!r}") from None


def _options(given: list[str]) -> dict[str, Any]:
    """The options of a method, their values as a recipe spells them. Raises OptionError."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise OptionError(f"--option must be a name and a value, such as density=0.3; got {text!r}")
        try:
            found[name] = parse_yaml(value)
        except Refused as error:
            raise OptionError(f"--option {name}: {value!r} is no value: {error}") from None
    return found


def _check(out: Path, overwrite: bool) -> None:
    """Raise ExportError for an output that cannot be, before there is work done for it."""
    if out.suffix != ".safetensors":
        raise ExportError(f"{out}: a LoRA's name ends in .safetensors")
    if out.exists() and not overwrite:
        raise ExportError(f"{out}: is there already; choose another name or --overwrite")


def _write(lora: LowRank, out: Path, format: Format, dtype: SavedDtype, overwrite: bool) -> None:
    path = export(lora, out, format=format, dtype=dtype, overwrite=overwrite)
    typer.echo(printable(f"{path}: {path.stat().st_size / 1e6:.3g} MB; {lora.report.headline}"))  # type: ignore[union-attr]
