"""Preflight: everything that matters about a merge and can be said from names, shapes and options, before a weight is read."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, final

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.base import MOST_MERGES, merges_in, tree
from workbench.errors import MergeError
from workbench.recipe.findings import judge, leftovers, rounding
from workbench.recipe.inputs import Finding
from workbench.wording import printable

if TYPE_CHECKING:
    import pandas as pd

_LEVELS = ("error", "warning", "note")


@final
@dataclass(frozen=True)
class Preflight:
    """What was found: the files that a merge is made of, and the findings, errors first."""

    files: tuple[Checkpoint, ...]
    findings: tuple[Finding, ...]

    @cached_property
    def models(self) -> tuple[Mapping[str, object], ...]:
        """What is known of each file, as rows of a table."""
        return tuple(map(describe, self.files))

    @property
    def errors(self) -> tuple[str, ...]:
        return self._texts("error")

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._texts("warning")

    @property
    def notes(self) -> tuple[str, ...]:
        return self._texts("note")

    @property
    def ok(self) -> bool:
        """Whether the merge can be made."""
        return not self.errors

    def raise_errors(self) -> None:
        """Raise MergeError with every error there is; nothing when there is none."""
        if self.errors:
            raise MergeError("this merge cannot be made:\n" + "\n".join(f"- {printable(text)}" for text in self.errors))

    def frame(self) -> pd.DataFrame:
        """One row per input: name, architecture, layout, components, prediction type, dtypes, tensors, megabytes."""
        import pandas as pd

        return pd.DataFrame(self.models)

    def __str__(self) -> str:
        lines = [", ".join(f"{name}: {value}" for name, value in model.items()) for model in self.models]
        return "\n".join(map(printable, [*lines, *(f"{finding.level}: {finding.text}" for finding in self.findings)]))

    def _repr_html_(self) -> str:
        marks = {"error": "&#10060;", "warning": "&#9888;&#65039;", "note": "&#8505;&#65039;"}
        items = "".join(f"<li>{marks[f.level]} {html.escape(f.text)}</li>" for f in self.findings)
        return f"{self.frame().to_html(index=False)}<ul style='list-style:none'>{items or '<li>&#9989; nothing to report</li>'}</ul>"

    def _texts(self, level: str) -> tuple[str, ...]:
        return tuple(finding.text for finding in self.findings if finding.level == level)


def preflight(checkpoint: Checkpoint) -> Preflight:
    """Judge a merge and the merges inside it by names, shapes and options; no weight is read."""
    models = tree(checkpoint)
    files = [model for model in models if not model.parents]
    merges = list(dict.fromkeys(model.merge for model in models if model.merge is not None))
    findings = list(dict.fromkeys([*_repetition(checkpoint), *(one for merge in merges for one in judge(merge))]))
    findings += leftovers(merges)
    findings += rounding(checkpoint.merge) if checkpoint.merge else ()
    findings += [Finding("note", f"{file.name}: {text}") for file in [*merges, *files] for text in file.notes]
    findings.sort(key=lambda finding: _LEVELS.index(finding.level))
    return Preflight(tuple(files), tuple(findings))


def describe(model: Checkpoint) -> dict[str, object]:
    """What is known of a checkpoint from its header, as one row of a table."""
    dtypes = Counter(model.info(key).dtype_name for key in model)
    return {
        "model": model.name,
        "architecture": model.architecture,
        "layout": model.structure.layout,
        "components": ", ".join(model.components),
        "prediction": model.structure.prediction,
        "dtypes": ", ".join(f"{name} {count}" for name, count in dtypes.most_common()),
        "tensors": len(model),
        "MB": round(model.nbytes / 1e6, 1),
    }


def _repetition(checkpoint: Checkpoint) -> Iterator[Finding]:
    """An error about merges that are inputs again and again: each time they are calculated, and stand in the recipe."""
    if (count := merges_in(checkpoint)) > MOST_MERGES:
        told = f"{checkpoint.name}: is made of {count:,} merges, each counted as often as it is an input; at most {MOST_MERGES:,} are made"
        yield Finding("error", f"{told}: export an inner merge that is used often, and merge what `open` gives")
