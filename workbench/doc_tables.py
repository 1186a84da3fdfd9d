"""The tables in the docs that are made from declarations and measurements: merge methods, families, formats, kinds of LoRAs.

`python -m workbench.doc_tables README.md docs/families.md docs/formats.md docs/loras.md docs/methods.md` writes each anew between the two
marks that a file has for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from workbench import families
from workbench.analysis.advising import held_in_words
from workbench.analysis.comparing_methods import AVERAGE, SUM, MethodTask, TaskScore, methods_compared
from workbench.analysis.purposes import purpose
from workbench.checkpoint.changes.kinds import KINDS
from workbench.checkpoint.files.ggml_types import ggml_types
from workbench.checkpoint.names.lora_modules import EXAMPLES, module_of
from workbench.checkpoint.stored.formats import FORMATS
from workbench.checkpoint.stored.refused import REFUSED
from workbench.engine.quantising.formats import GgufFormat, SafetensorsFormat
from workbench.engine.quantising.quantiser import Quantiser
from workbench.errors import WorkbenchError
from workbench.families import Family
from workbench.families.correspondence import Unchanged
from workbench.merge.declaration import Declaration
from workbench.operators import own
from workbench.tensors import TensorInfo


def methods_table() -> str:
    """A Markdown table, one row for each operator: how to call it, what it does, its source."""
    found = [operator.declaration for operator in own().values()]
    return _table(["method", "what it does", "source"], [[_called(one), one.summary, one.source] for one in found])


def options_table() -> str:
    """A Markdown table, one row for each option of each operator: its default, what it may be and does."""
    rows = [
        [f"`{operator.declaration.name}`" if first else "", f"`{written}`", what]
        for operator in own().values()
        for first, (written, what) in _counted([option.told for option in operator.declaration.options.values()])
    ]
    return _table(["method", "option", "what it may be: what it does"], rows)


def tasks_table() -> str:
    """A Markdown table, one row for each task that methods were compared at: what its models draw alone, and merged."""
    rows = [
        [task.name, "; ".join(f"{name} {_share(one)}" for name, one in task.alone.items()), *_merged(task)]
        for task in methods_compared().tasks.values()
    ]
    return _table(["task", "each model alone", "averaging", "adding", "methods that none beats"], rows)


def purposes_table() -> str:
    """A Markdown table, one row for each operator: what it is for, and what it came to at each task."""
    compared = methods_compared()
    tasks = list(compared.tasks.values())
    rows = []
    for name in own():
        scores = [task.methods.get(name) for task in tasks]
        costs = [next((f"{one.told[cost]:.1f}" for one in scores if one and cost in one.told), "") for cost in ("time", "memory")]
        rows.append([f"`{name}`", purpose(compared, name), *map(_chosen, scores), *costs])
    return _table(["method", "what it is for", *(task.name for task in tasks), "time", "memory"], rows)


def advice_line() -> str:
    """How often `wb.advise` was right."""
    return f"{held_in_words(methods_compared())}\n"


def families_table() -> str:
    """A Markdown table, one row for each family of models: its name, its class in diffusers, layouts, prediction, its name in GGUF."""
    found = [family for family in families.registry().values() if family.is_model]
    rows = [_family(family) for family in sorted(found, key=lambda one: one.name)]
    return _table(["`architecture`", "diffusers", "`in_layout`", "predicts", "in GGUF"], rows)


def lora_kinds_table() -> str:
    """A Markdown table, one row for each kind of change in LoRA files: its name, how its parts are called, what it depends on."""
    rows = [[kind.name, kind.written, "yes" if kind.given else "", "yes" if kind.against_base else ""] for kind in KINDS]
    return _table(["kind", "parts in the file", "may be a DoRA", "only upon a model"], rows)


def lora_dialects_table() -> str:
    """A Markdown table, one row for each program's names of modules in LoRA files: an example, and what it means."""
    return _table(["names of", "a module", "means"], [[who, f"`{name}`", f"`{module_of(name).usual}`"] for who, name in EXAMPLES])


def quantised_formats_table() -> str:
    """A Markdown table, one row for each format of quantised tensors that is read, and each that is refused by name."""
    types = ", ".join(kind.name for kind in ggml_types())
    gguf = ["GGUF", f"ComfyUI-GGUF, stable-diffusion.cpp and others: {types}", "how the file begins", "yes, with the extra `quantised`"]
    rows = [[one.name, one.written_by, one.told_by, "yes"] for one in FORMATS]
    refused = [[one.name, "", ", ".join(f"`x{end}`" for end in one.ends), "refused"] for one in REFUSED]
    return _table(["format", "written by", "how it is told", "read"], [gguf, *rows, *refused])


def quantised_types_table() -> str:
    """A Markdown table, one row for each type that quantised tensors are written as, with the bits of a weight of a large matrix."""
    matrix = TensorInfo((4096, 4096), "F32")
    rows = []
    for end, form in ((".gguf", GgufFormat()), (".safetensors", SafetensorsFormat())):
        for name in form.types():
            made = form.quantised(matrix, name, False)
            assert isinstance(made, Quantiser)
            budget = "yes" if name in form.allotted() else ""
            rows.append([f"`{name}`", end, f"{8 * made.nbytes / matrix.numel:.2f}", form.readers(name), budget])
    return _table(["type", "file", "bits per weight", "read by", "by `max_bytes`"], rows)


_TABLES: dict[str, Callable[[], str]] = {
    "methods": methods_table,
    "options": options_table,
    "tasks": tasks_table,
    "purposes": purposes_table,
    "advice": advice_line,
    "families": families_table,
    "quantised formats": quantised_formats_table,
    "quantised types": quantised_types_table,
    "lora kinds": lora_kinds_table,
    "lora dialects": lora_dialects_table,
}


def with_tables(text: str) -> str:
    """`text` with a fresh table between each pair of marks. Raises WorkbenchError for a text without one, or with half of one."""
    there = [name for name in _TABLES if any(mark in text for mark in marks(name))]
    if not there:
        told = " or ".join(f"a line {begin} and a line {end}" for begin, end in map(marks, _TABLES))
        raise WorkbenchError(f"a table goes between {told}; add both")
    for name in there:
        begin_mark, end_mark = marks(name)
        before, begin, rest = text.partition(begin_mark)
        _, end, after = rest.partition(end_mark)
        if not begin or not end or begin_mark in rest or end_mark in after:
            raise WorkbenchError(f"the {name} table goes between one line {begin_mark} and one line {end_mark}; add both")
        text = f"{before}{begin}\n\n{_TABLES[name]()}\n{end}{after}"
    return text


def marks(name: str) -> tuple[str, str]:
    """The lines between which a table goes."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def _called(found: Declaration) -> str:
    return f"`{found.name}({', '.join(f'[{slot.name}]' if slot.many else slot.name for slot in found.inputs)})`"


def _merged(task: MethodTask) -> list[str]:
    found = [task.methods.get(name) for name in (AVERAGE, SUM)]
    best = [f"`{name}`" for name in task.methods if name in task.best]
    return [*(_share(one) if one else "" for one in found), f"{len(best)} of {len(task.methods)}: {', '.join(best)}"]


def _share(one: TaskScore) -> str:
    """In per cent, with the deviation between seeds."""
    return f"{100 * one.score:.0f} ± {100 * one.spread:.0f}"


def _chosen(one: TaskScore | None) -> str:
    """The share, and the options it was had with where they are not the default."""
    if one is None:
        return ""
    options = ", ".join(f"`{name}={value}`" for name, value in one.told["options"].items())
    return _share(one) + (f" ({options})" if options else "")


def _counted(told: list[tuple[str, str]]) -> list[tuple[bool, tuple[str, str]]]:
    """Each, and whether it is the first."""
    return [(number == 0, one) for number, one in enumerate(told)]


def _family(found: Family) -> list[str]:
    layouts = ", ".join(f"`{layout}`" for layout in found.layouts)
    if isinstance(found.conversion, Unchanged):
        layouts = found.conversion.reason or f"{layouts}, with the same names"
    return [found.name, f"`{found.model}`", layouts, found.prediction, f"`{found.gguf}`" if found.gguf else ""]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
