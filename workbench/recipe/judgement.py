"""Preflight: everything that matters about a merge and can be said from names, shapes and options, before a weight is read."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from workbench.checkpoint import Checkpoint
from workbench.errors import MergeError
from workbench.merge import Merge
from workbench.recipe.findings import judge, leftovers, rounding
from workbench.recipe.inputs import Finding

if TYPE_CHECKING:
    import pandas as pd

_LEVELS = ("error", "warning", "note")


@final
@dataclass(frozen=True)
class Preflight:
    """What was found: the inputs, one row each, and the findings, errors first."""

    models: tuple[Mapping[str, object], ...]
    findings: tuple[Finding, ...]

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
            raise MergeError("this merge cannot be made:\n" + "\n".join(f"- {text}" for text in self.errors))

    def frame(self) -> pd.DataFrame:
        """One row per input: name, architecture, layout, components, prediction type, dtypes, tensors, megabytes."""
        import pandas as pd

        return pd.DataFrame(self.models)

    def __str__(self) -> str:
        lines = [", ".join(f"{name}: {value}" for name, value in model.items()) for model in self.models]
        return "\n".join([*lines, *(f"{finding.level}: {finding.text}" for finding in self.findings)])

    def _repr_html_(self) -> str:
        marks = {"error": "&#10060;", "warning": "&#9888;&#65039;", "note": "&#8505;&#65039;"}
        items = "".join(f"<li>{marks[f.level]} {html.escape(f.text)}</li>" for f in self.findings)
        return f"{self.frame().to_html(index=False)}<ul style='list-style:none'>{items or '<li>&#9989; nothing to report</li>'}</ul>"

    def _texts(self, level: str) -> tuple[str, ...]:
        return tuple(finding.text for finding in self.findings if finding.level == level)


def preflight(checkpoint: Checkpoint) -> Preflight:
    """Judge a merge and the merges inside it by names, shapes and options; no weight is read."""
    files = _files(checkpoint)
    findings = list(dict.fromkeys(finding for merge in _merges(checkpoint) for finding in judge(merge)))
    findings += leftovers(list(_merges(checkpoint)))
    findings += rounding(checkpoint.merge) if checkpoint.merge else ()
    findings += [Finding("note", f"{file.name}: {text}") for file in files for text in file.notes]
    findings.sort(key=lambda finding: _LEVELS.index(finding.level))
    return Preflight(tuple(describe(model) for model in files), tuple(findings))


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


def _merges(checkpoint: Checkpoint) -> Iterator[Merge]:
    """The merges of a tree, innermost first."""
    for model in checkpoint.parents:
        yield from _merges(model)
    if checkpoint.merge is not None:
        yield checkpoint.merge


def _files(checkpoint: Checkpoint) -> list[Checkpoint]:
    return list(dict.fromkeys(file for model in checkpoint.parents for file in _files(model))) or [checkpoint]
