"""A case and what was wrong with it; and the table of many."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One thing that was tried, and what was wrong, if anything."""

    what: str
    problem: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


@dataclass
class Row:
    """The sum of one kind of cases."""

    kind: str
    tried: int = 0
    problems: list[Case] = field(default_factory=list)
    slowest: float = 0.0
    largest: float = 0.0
    seconds: float = 0.0

    def take(self, cases: Iterable[Case]) -> Row:
        """Try them all; what is wrong is said at once."""
        began = time.monotonic()
        for case in cases:
            self.tried += 1
            self.slowest, self.largest = max(self.slowest, case.seconds), max(self.largest, case.megabytes)
            if case.problem:
                self.problems.append(case)
                print(f"LOST {self.kind}: {case.what}: {case.problem[:600]}", flush=True)
        self.seconds = time.monotonic() - began
        return self


def table(rows: Iterable[Row]) -> Iterator[str]:
    """As a Markdown table."""
    yield "| kind | tried | survived | lost | slowest input | most memory | the run took |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for row in rows:
        slowest = f"{row.slowest:.2f} s" if row.slowest else ""
        largest = f"{row.largest:.0f} MB" if row.slowest else ""
        counts = f"{row.tried:,} | {row.tried - len(row.problems):,} | {len(row.problems):,}"
        yield f"| {row.kind} | {counts} | {slowest} | {largest} | {row.seconds:.0f} s |"
