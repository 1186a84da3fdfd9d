"""Measures Workbench beside its peers and beside the floor, and writes the tables into benchmarks/README.md: `python -m benchmarks`.

What it makes and measures stays in a folder for each size (out/benchmarks/side-by-side/sd15): stopped with Ctrl-C, the same command
goes on where it was. With --remove the folder of the size is deleted at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.side_by_side import analyses, micro, ours, tables, tools
from benchmarks.side_by_side.files import MODELS, SIZES, Files, Size
from benchmarks.side_by_side.kernel import Kernel
from benchmarks.side_by_side.report import report
from benchmarks.side_by_side.store import Job, Store, run
from workbench.checkpoint.files import hashing
from workbench.operators import own

README = Path(__file__).with_name("README.md")
PARTS = ("operators", "peers", "analyses", "micro")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    for name, one in SIZES.items():
        size.add_argument(f"--{name}", dest="size", action="store_const", const=name, help=f"files of {one.title}'s names and shapes")
    parser.set_defaults(size="sd15")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--operators", nargs="*", choices=list(own()), default=[], metavar="NAME", help="these alone; all without it")
    names = [tool.name for tool in tools.TOOLS]
    parser.add_argument("--tools", nargs="*", choices=names, default=names, metavar="NAME", help="these peers alone")
    parser.add_argument("--folder", type=Path, default=Path("out/benchmarks/side-by-side"))
    parser.add_argument("--quick", action="store_true", help="one tensor of each shape, one round; prints the tables")
    parser.add_argument("--remove", action="store_true", help="delete what was made at the end")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parsed(arguments)
    size, rounds = _asked(given)
    folder = given.folder.absolute() / (given.size + "-quick" * given.quick)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    where = Files(folder, size)
    where.make()
    for files in ("large", "small", "light", "tiny"):
        for model in MODELS:
            hashing.sha256(where.path(files, model))  # remembered: no merge has to
    store = Store(folder / "measured.json")
    chosen = [tool for tool in tools.TOOLS if tool.name in given.tools]
    environment = tools.Environment(given.folder.absolute() / "peers")
    installed = environment.install(chosen, _say) if {"peers", "analyses"} & set(given.parts) and chosen else {}
    with Kernel(folder / "kernel.log") as kernel:
        every = partial(_jobs, where, kernel, environment, installed, rounds)
        asked = every(given.operators, chosen)
        run([job for part in PARTS if part in given.parts for job in asked[part]], store, _say)
        text = report(where, [job for part in every([], tools.TOOLS).values() for job in part], store)  # also what other runs measured
    if given.quick:
        print(text)
    else:
        tables.written(README, given.size, text)
        _say(f"{README}: the tables of {size.title} are written")
    if given.remove:
        shutil.rmtree(folder)


def _asked(given: argparse.Namespace) -> tuple[Size, int]:
    size = SIZES[given.size]
    return (size.quick(), 1) if given.quick else (size, given.rounds)


def _jobs(
    where: Files,
    kernel: Kernel,
    environment: tools.Environment,
    installed: Mapping[str, str],
    rounds: int,
    operators: Sequence[str],
    chosen: Sequence[tools.Tool],
) -> dict[str, list[Job]]:
    """Everything there is to measure, by part, in the order in which a round does it; of some operators and peers alone."""
    return {
        "operators": [*ours.jobs(where, kernel, rounds, operators)],
        "peers": [*tools.jobs(where, environment, chosen, installed, rounds)],
        "analyses": [*analyses.jobs(where, kernel, environment, chosen, installed, rounds)],
        "micro": [*micro.jobs(where, rounds)],
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
