"""The table of merge methods for the docs, made from the operators' declarations.

`python -m workbench.methods README.md` writes it anew between the two marks that the file has for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.merge.declaration import Declaration, Option
from workbench.operators import registry

BEGIN, END = "<!-- methods: begin -->", "<!-- methods: end -->"


def methods_table() -> str:
    """A Markdown table, one row for each operator: how to call it, what it does, its options, its source."""
    rows = [_row(operator.declaration) for operator in registry().values()]
    return "\n".join(["| method | what it does | options | source |", "| --- | --- | --- | --- |", *rows]) + "\n"


def with_methods(text: str) -> str:
    """`text` with a fresh table between its marks. Raises WorkbenchError when it does not have each mark once, in order."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise WorkbenchError(f"the methods table goes between one line {BEGIN} and one line {END}; add both")
    return f"{before}{BEGIN}\n\n{methods_table()}\n{END}{after}"


def _row(found: Declaration) -> str:
    inputs = ", ".join(f"[{slot.name}]" if slot.many else slot.name for slot in found.inputs)
    options = "<br>".join(map(_option, found.options.values())) or "none"
    cells = [f"`{found.name}({inputs})`", found.summary, options, found.source]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _option(option: Option) -> str:
    per = [name for name, is_so in (("model", option.per_model), ("block", option.constraint.per_block)) if is_so]
    default = "" if option.required else f"={option.default:g}" if isinstance(option.default, float) else f"={option.default!r}"
    reach = f"; per {' and '.join(per)}" if per else ""
    return f"`{option.name}{default}` {option.allowed}: {option.constraint.help}{reach}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_methods(path.read_text(encoding="utf-8")), encoding="utf-8")
