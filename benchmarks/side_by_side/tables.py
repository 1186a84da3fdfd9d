"""The tables of `benchmarks/README.md`, from what was kept of each round. Nothing is measured here."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.store import Measured
from workbench.checkpoint.files.writing import replacing

Rounds = Sequence[Measured]
_ELEMENTWISE = 200  # MB of anonymous memory that a merge of single elements may take; the others twice the largest tensor more


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; nothing where there are no rows."""
    if not rows:
        return ""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def over_floor(rounds: Rounds) -> float:
    """The median of the rounds' multiples of the floor, each of the floor of its own round."""
    return statistics.median(one["seconds"] / one["floor"] for one in rounds)


def median(rounds: Rounds, name: str) -> float:
    return statistics.median(one[name] for one in rounds)


def wanted(found: Mapping[str, Rounds], bounds: Mapping[str, float], processes: Mapping[str, Rounds]) -> str:
    """The operators that are held to a multiple of the floor: in a running kernel, and as a process."""
    rows = []
    for name, rounds in found.items():
        if name not in bounds:
            continue
        ratios = [one["seconds"] / one["floor"] for one in rounds]
        process = processes.get(name, ())
        rows.append(
            [
                *(f"`{name}`", f"{over_floor(rounds):.1f}", f"{min(ratios):.1f} to {max(ratios):.1f}", f"{bounds[name]:g}"),
                *(f"{median(rounds, 'floor'):.2f}", f"{median(rounds, 'seconds'):.2f}", _number(process, "seconds", ".1f")),
                _number(process, "peak", ".0f"),
            ]
        )
    return table(["operator", "over the floor", "rounds", "wanted", "floor, s", "s", "as a process, s", "peak, MB"], rows)


def operators(kernel: Mapping[str, Rounds], processes: Mapping[str, Rounds], largest: float, elementwise: Callable[[str], bool]) -> str:
    """Every operator, with its peak and what it may be; `largest` is the largest tensor in float32, in MB."""
    rows = []
    for name, rounds in kernel.items():
        bound = _ELEMENTWISE if elementwise(name) else _ELEMENTWISE + 2 * largest
        rows.append([f"`{name}`", f"{over_floor(rounds):.1f}", _number(processes.get(name, ()), "peak", ".0f"), f"{bound:.0f}"])
    return table(["operator", "over the floor", "peak, MB", "wanted, MB"], rows)


def peers(ours: Mapping[str, Rounds], theirs: Mapping[tuple[str, str], Rounds]) -> str:
    """Each operation by each tool, ours first; `theirs` is by operation and tool."""
    rows = []
    for operation, rounds in ours.items():
        mine = median(rounds, "seconds")
        rows.append(_row(operation, "Workbench", rounds, mine))
        rows += [_row("", tool, found, mine) for (of, tool), found in theirs.items() if of == operation]
    return table(["operation", "tool", "s", "over the floor", "over ours", "peak, MB", "wrong"], rows)


def _row(operation: str, tool: str, rounds: Rounds, mine: float) -> list[str]:
    good = [one for one in rounds if "failed" not in one]
    if not good:
        return [operation, tool, "", "", "", "", f"failed: {rounds[-1]['failed']}"]
    seconds = median(good, "seconds")
    peak = max(one["peak"] for one in good)
    return [operation, tool, f"{seconds:.1f}", f"{over_floor(good):.1f}", f"{seconds / mine:.1f}", f"{peak:.0f}", told_wrong(good[-1])]


def told_wrong(found: Measured) -> str:
    """What a tool did wrong in words; "-" for nothing."""
    if "error" in found:
        return f"error {found['error']:.4f}"
    return ", ".join(_faults(found["wrong"])) or "-"


def _faults(wrong: Mapping[str, Any]) -> Iterator[str]:
    for name in ("lost", "added", "reshaped"):
        if count := wrong[name]:
            yield f"{count} tensors {name}"
    for change, count in (wrong["dtypes"] or {}).items():
        yield f"{change}: {count}"
    if off := wrong["off"]:
        yield f"{100 * off:.2g} % of values off, by up to {wrong['furthest']} units"


def micro(found: Mapping[str, tuple[str, Rounds]]) -> str:
    """One table for each measurement, which has its unit and what it is of above it."""
    parts = []
    for unit, rounds in found.values():
        rows = [[way, f"{statistics.median(one[way] for one in rounds):.2f}"] for way in rounds[0]]
        parts.append(table([unit, ""], rows))
    return "\n\n".join(parts)


def _number(rounds: Rounds, name: str, form: str) -> str:
    return format(median(rounds, name), form) if rounds else ""


def written(path: Path, mark: str, text: str) -> None:
    """Replace what stands between the two marks in a file. Raises SystemExit where they are not there."""
    old = path.read_text(encoding="utf-8")
    marks = re.compile(rf"(<!-- {re.escape(mark)}: begin -->\n).*?(<!-- {re.escape(mark)}: end -->)", re.DOTALL)
    if not marks.search(old):
        raise SystemExit(f"{path}: has no <!-- {mark}: begin --> and <!-- {mark}: end -->, between which the tables go")
    with replacing(path) as temporary:
        temporary.write_text(marks.sub(lambda found: f"{found[1]}{text}\n{found[2]}", old), encoding="utf-8")
