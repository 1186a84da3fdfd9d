"""Puts what was kept of a size together as one text for `benchmarks/README.md`. How a table looks is in `tables`."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import psutil
import torch

from benchmarks.side_by_side import planted, tables
from benchmarks.side_by_side.analyses import HYPER, RANK
from benchmarks.side_by_side.cases import WANTED, cases
from benchmarks.side_by_side.files import Files
from benchmarks.side_by_side.ours import OPERATIONS
from benchmarks.side_by_side.store import Job, Store
from workbench.operators import own
from workbench.tensors import Scope

_FLOAT32 = 4  # bytes
_CORES = os.cpu_count()


def report(where: Files, jobs: Sequence[Job], store: Store) -> str:
    """What was measured so far, as Markdown."""
    found = {job.key: rounds for job in jobs if (rounds := store.rounds(job))}
    units = {job.key: job.by for job in jobs}
    if not found:
        return "Nothing was measured."
    measures = {key: (units[key], one) for key, one in found.items() if key.startswith("micro/")}
    parts = [_about(where, found)]
    parts += _section("Held to a multiple of the floor", tables.wanted(_of("kernel/large", found), WANTED, _again(found, "large")))
    parts += _section("Beside the peers", tables.peers(_compared(found), _peers(found)))
    for files, title in (("small", "Every other operator"), ("light", "By singular vectors")):
        others = tables.operators(_of(f"kernel/{files}", found), _again(found, files), _largest(where, files), _elementwise())
        parts += _section(title, others)
    parts += _section("What reads models", _analyses(found))
    parts += _section("Why the engine does it so", tables.micro(measures))
    return "\n\n".join(parts)


def _section(title: str, text: str) -> list[str]:
    return [f"#### {title}", text] if text else []


def _about(where: Files, found: Mapping[str, tables.Rounds]) -> str:
    infos = {files: where.size.infos(files) for files in ("large", "small", "light")}
    sizes = [f"{files}: {len(one)} tensors, {sum(info.nbytes for info in one.values()) / 1e9:.2f} GB" for files, one in infos.items()]
    rounds = [len(one) for one in found.values()]
    machine = f"{_CORES} cores, {psutil.virtual_memory().total / (1 << 30):.0f} GiB, {platform.system()}, torch {torch.__version__}"
    often = f"{min(rounds)} to {max(rounds)} rounds" if max(rounds) > 1 else "one round"
    return f"{where.size.title}; {'; '.join(sizes)}. {datetime.date.today()}, {machine}; {often}."


def _of(kind: str, found: Mapping[str, tables.Rounds]) -> dict[str, tables.Rounds]:
    """By what follows a kind in the key."""
    return {key.removeprefix(f"{kind}/"): rounds for key, rounds in found.items() if key.startswith(f"{kind}/")}


def _again(found: Mapping[str, tables.Rounds], files: str) -> dict[str, tables.Rounds]:
    return _of(f"process/{files}", found)


def _compared(found: Mapping[str, tables.Rounds]) -> dict[str, tables.Rounds]:
    """Ours of each operation that peers have too; extraction among them."""
    merges = {one.name: found.get(f"process/{one.files}/{one.operator}") for one in OPERATIONS}
    return {name: rounds for name, rounds in {**merges, "extract": found.get("analysis/extract")}.items() if rounds}


def _peers(found: Mapping[str, tables.Rounds]) -> dict[tuple[str, str], tables.Rounds]:
    return {(operation, tool): rounds for key, rounds in _of("peer", found).items() for operation, tool in [key.split("/", 1)]}


def _analyses(found: Mapping[str, tables.Rounds]) -> str:
    rows = []
    if rounds := found.get("analysis/similarity"):
        rows.append(["similarity of three models, over reading them", f"{tables.over_floor(rounds):.1f}", "4"])
    if rounds := found.get("analysis/extract"):
        ratio = tables.median(rounds, "inside") / tables.median(rounds, "loop")
        rows.append(
            [f"extraction of rank {RANK}, over the time of a loop of `svd_lowrank(niter=2)`, both in the kernel", f"{ratio:.2f}", "0.5"]
        )
    if rounds := found.get("analysis/hyper_merge"):
        ratio = tables.median(rounds, "seconds") / tables.median(rounds, "loop")
        about = f"hyper-merge of {planted.FAMILY} models, ranks {HYPER['ranks']}, over the published loop's time"
        rows.append([f"{about} (counted up from {100 * rounds[0]['share']:.0f} % of the elements)", f"{ratio:.3f}", f"{1 / 15:.3f}"])
    if first := list(chain.from_iterable(_of("first/large", found).values())):
        rows.append(["`weighted_average` as a process, parents hashed first, over the floor", f"{tables.over_floor(first):.1f}", ""])
    return tables.table(["", "median", "wanted"], rows)


def _largest(where: Files, files: str) -> float:
    """MB of the largest tensor in float32."""
    return max(math.prod(info.shape) for info in where.size.infos(files).values()) * _FLOAT32 / 1e6


def _elementwise() -> Callable[[str], bool]:
    """Whether a case works element by element, by its name."""
    scopes = {case.name: own()[case.operator].declaration.scope_for(case.options) for case in cases()}
    return lambda name: scopes[name] is Scope.ELEMENT
