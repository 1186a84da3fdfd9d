"""The `workbench` command. Each subcommand says in words what the Python calls do; nothing is computed here."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from workbench.errors import MergeError, WorkbenchError
from workbench.places import NOTEBOOKS, ROOT, in_clone
from workbench.tensors import SavedDtype
from workbench.wording import printable

if TYPE_CHECKING:
    from workbench.checkpoint import Checkpoint


class _LoraCommands(TyperGroup):
    """The commands of `workbench.lora.commands`, imported when one of them is asked for: that takes longer than all else that starts."""

    def list_commands(self, ctx: Any) -> list[str]:
        return self._imported().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return self._imported().get_command(ctx, cmd_name)

    def _imported(self) -> TyperGroup:
        from workbench.lora.commands import app as lora

        return cast(TyperGroup, typer.main.get_command(lora))


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help="Merge image models, and look at them.")
app.add_typer(
    typer.Typer(cls=_LoraCommands, help="Take LoRAs out of models, put them together, and make them smaller.", no_args_is_help=True),
    name="lora",
)


@app.command()
def merge(
    recipe: Annotated[
        Path, typer.Argument(help="The recipe file (YAML); also mergekit's, sd-mecha's, or a merged checkpoint that carries one.")
    ],
    out: Annotated[Path, typer.Option(help="The safetensors or GGUF file to write, or the folder.")],
    dtype: Annotated[SavedDtype | None, typer.Option(help="Of the result; by default as the recipe says.")] = None,
    quantise: Annotated[
        str | None,
        typer.Option(help="Of its weights: in a .gguf Q8_0, Q5_0, ...; else float8_e4m3fn, int8_tensorwise, nvfp4, with scales."),
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option(help="Of the file: 6.5GB, or bytes; each weight gets the type with which the error is least.")
    ] = None,
    max_shard_size: Annotated[str | None, typer.Option(help="Write a folder of shards, each of at most so much: 5GB, or bytes.")] = None,
    device: Annotated[str, typer.Option(help="Where to calculate: cpu, cuda, cuda:1, mps.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="How many; by default the cores, at most 8.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it is there.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="NaN or infinity in an input is an error.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say what the inputs are, too.")] = False,
) -> None:
    """Make the merge that a recipe describes."""
    import workbench as wb

    made = wb.Recipe.load(recipe).build()
    made = made.with_dtype(dtype) if dtype else made
    most, limit = (int(text) if text and text.isdecimal() else text for text in (max_bytes, max_shard_size))
    found = wb.preflight(made)
    if verbose or dry_run:
        typer.echo(str(found))
    else:
        for note in found.notes:
            typer.echo(f"note: {printable(note)}", err=True)
    if dry_run:
        found.raise_errors()
        typer.echo(f"would write {len(made)} tensors, {_planned(made, out, quantise, most)}, to {printable(out)}")
        return
    written = wb.export(
        made,
        out,
        quantise=quantise,
        max_bytes=most,
        max_shard_size=limit,
        device=device,
        threads=threads,
        overwrite=overwrite,
        strict=strict,
    )
    typer.echo(printable(written, keep="\n"))


def _planned(made: Checkpoint, out: Path, quantise: str | None, max_bytes: int | str | None) -> str:
    """How large an export would be, and what it would quantise, in words."""
    from workbench.engine.checks import checked_bytes
    from workbench.engine.quantising.asking import asked_for
    from workbench.engine.quantising.choosing import quantised_plan

    asked = asked_for(out, quantise, None, False, checked_bytes(out, max_bytes))
    if asked is None:
        return f"{made.nbytes / 1e6:.1f} MB"
    if asked.max_bytes is not None:
        return f"at most {asked.max_bytes / 1e6:.1f} MB, of types to be chosen"
    plan = quantised_plan(out, made, {key: made.info(key) for key in made}, asked, made.rounding)
    return f"{plan.nbytes / 1e6:.1f} MB, {plan.note}"


@app.command()
def inspect(files: Annotated[list[Path], typer.Argument(help="Checkpoints: files or folders; of two, also how they differ.")]) -> None:
    """Say what checkpoints are: architecture, layout, components, prediction, dtypes, blocks, recipe; of two, how they differ.

    Of quantised files also what tensors are stored as, and in how many bits. Of a LoRA also what it changes, by how much, and what its
    header tells of its training.
    """
    import workbench as wb
    from workbench.checkpoint.files.leftovers import leftovers

    found = []
    for file in files:
        try:
            found.append(wb.open(file))
        except WorkbenchError as error:
            typer.echo(f"error: {printable(error)}", err=True)
        else:
            typer.echo(printable(file))
            _describe(found[-1])
        for left in leftovers(file):
            told = f"{file}: an export that was killed left {left}; the next export into this folder removes it"
            typer.echo(printable(told))
    if len(found) == len(files) == 2:
        typer.echo(f"\n{wb.diff(*found)}")
    if len(found) < len(files):
        raise typer.Exit(1)


@app.command()
def lineage(
    file: Annotated[Path, typer.Argument(help="A checkpoint or LoRA: file or folder.")],
    among: Annotated[Path | None, typer.Option(help="The folder in which its ancestors may lie; they are found by hash.")] = None,
) -> None:
    """Show the family tree of a file, as far as headers tell it; measured among the files of a folder where they are silent."""
    import workbench as wb

    typer.echo(wb.lineage(file, among))


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A merged file or folder that carries its recipe.")],
    among: Annotated[Path | None, typer.Option(help="The folder in which its parents lie, renamed or not.")] = None,
) -> None:
    """Make a merged file again from its recipe, and compare every byte: exits with 0 if it is the same, 1 if it differs, 2 if it cannot."""
    import workbench as wb

    try:
        found = wb.verify(file, among)
    except WorkbenchError as error:  # no statement about the file, and so not the status of one that differs
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(found)
    raise typer.Exit(found.status)


def _describe(checkpoint: Checkpoint) -> None:
    import workbench as wb
    from workbench.checkpoint.stored.summary import stored_as
    from workbench.checkpoint.views.low_rank import LowRank
    from workbench.merge.schedules import Depth
    from workbench.recipe.judgement import describe

    for name, value in describe(checkpoint).items():
        typer.echo(f"  {name}: {printable(value)}")
    for line in stored_as(checkpoint):
        typer.echo(f"  stored as: {printable(line)}")
    depth = Depth.of(map(checkpoint.structure.location, checkpoint))
    typer.echo(f"  blocks: {printable(', '.join(depth.names)) or 'none'}")
    typer.echo(f"  modules beside them: {printable(', '.join(depth.modules)) or 'none'}")
    if isinstance(checkpoint, LowRank):
        for line in str(wb.lora.inspect(checkpoint)).splitlines():
            typer.echo(f"  {line}")
    else:
        for note in checkpoint.notes:
            typer.echo(f"  note: {printable(note)}")
    if "sd_merge_recipe" in checkpoint.metadata:
        typer.echo("  carries a recipe: workbench.Recipe.from_file(path); `workbench lineage` shows what it was made of")


@app.command()
def doctor() -> None:
    """Say what this installation has and can do, and try it; ends with 1 where something does not work."""
    from workbench.doctor import doctor as look

    found = look()
    typer.echo(str(found))
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def lab() -> None:
    """Open JupyterLab on the quickstart notebook."""
    import subprocess

    notebook = in_clone(NOTEBOOKS / "00_quickstart.ipynb").relative_to(ROOT).as_posix()
    # rooted in the clone, so that the models and what the notebooks write are in sight beside them
    options = [f"--ServerApp.root_dir={ROOT}", f"--LabApp.default_url=/lab/tree/{notebook}"]
    raise typer.Exit(subprocess.call([sys.executable, "-m", "jupyterlab", *options], cwd=ROOT))


@app.command()
def queue(
    folder: Annotated[Path, typer.Argument(help="The folder of the queue.")] = Path("out/queue"),
    show: Annotated[bool, typer.Option("--list", help="Only say what is in it.")] = False,
) -> None:
    """Work off what panels have queued, one job after another, until nothing waits; stop with Ctrl-C, and it goes on next time."""
    from workbench.sweeps import Queue
    from workbench.sweeps.queue_runner import work_off

    if show:
        for job in Queue(folder, run=False).jobs:
            told = f": {job.message}" if job.message else ""
            typer.echo(printable(f"{job.id}  {job.state:<8}{100 * job.share:4.0f} %  {job.title}{told}"))
        return
    count = work_off(folder)
    typer.echo("another process works this queue off" if count is None else f"{count} done; nothing waits any more")


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="The file (YAML) that describes the sweep; docs/scaling.md says what may be in it.")],
    page: Annotated[Path | None, typer.Option(help="Also write the grid of pictures as a page: grid.html, or a PNG.")] = None,
) -> None:
    """Draw and score many merges of a recipe; stop with Ctrl-C, and the same command goes on."""
    from workbench.sweeps.sweep_file import draw_sweep

    with _going_on():
        found = draw_sweep(file)
    typer.echo(printable(found.frame().to_string(index=False), keep="\n"))
    typer.echo(printable(repr(found).strip("<>")))
    if page is not None:
        typer.echo(printable(found.grid().save(page)))


@app.command()
def search(
    file: Annotated[Path, typer.Argument(help="The file (YAML) that describes the search; docs/scaling.md says what may be in it.")],
    out: Annotated[Path | None, typer.Option(help="Also write the merge that was found: a safetensors file.")] = None,
    page: Annotated[Path | None, typer.Option(help="Also write the unseen pictures of each kind of choice: grid.html, or a PNG.")] = None,
) -> None:
    """Find the options whose merge draws best, and say how sure that is; stop with Ctrl-C, and the same command goes on."""
    from workbench.searches.search_file import draw_search

    with _going_on():
        found = draw_search(file)
    typer.echo(printable(found.compared().to_string(index=False), keep="\n"))
    typer.echo(printable(found.headline))
    if page is not None:
        typer.echo(printable(found.grid().save(page)))
    if out is not None:
        typer.echo(printable(found.unseen.export(found.cell, out), keep="\n"))


@contextmanager
def _going_on() -> Iterator[None]:
    """Ctrl-C says what is kept, and that is all it does."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped: what is drawn is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None


@app.command()
def demo(out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("out/demo")) -> None:
    """Merge the embedded models three ways, and draw them side by side."""
    from workbench.demo import run

    run(out)


def main() -> None:
    """Run the command; what goes wrong on purpose is one message, not a traceback."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {printable(message)}", file=sys.stderr)
    try:
        app()
    except WorkbenchError as error:
        lines = "\n" if isinstance(error, MergeError) else ""  # in others a line break is in a name that somebody gave
        print(f"error: {printable(error, keep=lines)}", file=sys.stderr)
        raise SystemExit(1) from None
