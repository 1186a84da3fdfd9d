"""The table of merge methods for the docs, made from the operators' declarations.

`python -m workbench.methods README.md` writes it anew between the two marks that the file has for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.merge.declaration import Declaration
from workbench.operators import own

BEGIN, END = "<!-- methods: begin -->", "<!-- methods: end -->"


def methods_table() -> str:
    """A Markdown table, one row for each operator: how to call it, what it does, its options, its source."""
    rows = [_row(operator.declaration) for operator in own().values()]
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
    told = [option.told for option in found.options.values()]
    options = "<br>".join(f"`{written}` {what}" for written, what in told) or "none"
    cells = [f"`{found.name}({inputs})`", found.summary, options, found.source]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_methods(path.read_text(encoding="utf-8")), encoding="utf-8")
