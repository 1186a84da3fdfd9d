"""What a day in a panel leaves behind: memory of the kernel and of the page, and how many things are alive there, over many moves.

`python -m benchmarks.panel_memory --moves 500` needs chromium, and drives JupyterLab as the browser tests do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks.arguments import asked
from benchmarks.panel import opened
from workbench import figures

if TYPE_CHECKING:
    from notebook_page import NotebookPage

_EVERY = 25  # moves between two looks
_SETTLED = 100  # moves after which every method was there, and all that is loaded or kept once has been
# ten moves are six of a weight, another method, one step back, another prompt, and a prompt from before
_CELL = """import gc
import comm, psutil
import workbench as wb
from ipywidgets.widgets.widget import _instances
panel = wb.MergePanel(gallery=None)
methods = ["weighted_average", "task_arithmetic", "ties"]

def moved(number):
    state, kind = panel.state, number % 10
    if kind == 3:
        panel.show(state.with_operator(methods[number // 10 % 3]))
    elif kind == 5:
        panel.undo()
    elif kind in (7, 9):
        panel.show(state.with_wanted(prompts=[f"a red heart on a {['white', 'black'][kind == 7]} background, {number // 10 % 2}"]))
    else:
        panel.show(state.with_option("weights", [0.2 + number % 499 / 1000] * len(state.many)))
    return panel.wait(60) and panel.merge is not None

def looked():
    gc.collect()
    return {"MB": psutil.Process().memory_info().rss / 1e6, "widgets": len(_instances), "comms": len(comm.get_comm_manager().comms),
            "objects": len(gc.get_objects())}

panel.show(panel.state.with_wanted(prompts=["a red heart on a white background"], steps=2))
panel.wait()
panel"""


def measured(moves: int) -> pd.DataFrame:
    """A row for every so many moves: what is alive in the kernel, and in the page."""
    rows = []
    with opened(_CELL) as fresh, fresh() as notebook:
        notebook.run_all()
        page = notebook.page.context.new_cdp_session(notebook.page)
        page.send("Performance.enable")
        for number in range(moves + 1):
            if number % _EVERY == 0:
                rows.append({"moves": number, **notebook.python("looked()"), **_seen(notebook, page)})
                print("  ".join(f"{name} {value:.0f}" for name, value in rows[-1].items()), flush=True)
            if not notebook.python(f"moved({number})"):
                raise SystemExit(f"move {number}: the pictures are not there after a minute")
    return pd.DataFrame(rows)


def _seen(notebook: NotebookPage, page: object) -> dict[str, float]:
    """What is alive in the page, once what is not has been taken away."""
    notebook.page.wait_for_function("() => !document.querySelector('.wb-stale')")
    for _ in range(2):  # what the first finds unused lets go of more
        page.send("HeapProfiler.collectGarbage")
    found = {one["name"]: one["value"] for one in page.send("Performance.getMetrics")["metrics"]}
    return {"page MB": found["JSHeapUsedSize"] / 1e6, "nodes": found["Nodes"], "listeners": found["JSEventListeners"]}


def main() -> None:
    given = asked(__doc__, moves=500)
    frame = measured(given.moves)
    frame.to_csv(given.folder / "panel-memory.csv", index=False, float_format="%.6g")
    lines = frame.melt("moves", ["MB", "page MB"], "of", "megabytes").replace({"MB": "the kernel", "page MB": "the page"})
    figure = figures.lines(lines, x="moves", y="megabytes", colour="of", title="Memory of a panel over its moves")
    figure.update_yaxes(rangemode="tozero").write_html(given.folder / "panel-memory.html", include_plotlyjs=True)
    rest = frame[frame["moves"] >= _SETTLED]
    for name in frame.columns.drop("moves"):
        if len(rest) > 1:
            slope = 100 * np.polyfit(rest["moves"], rest[name], 1)[0]
            first, last = rest[name].iloc[0], rest[name].iloc[-1]
            print(f"{name}: {first:.0f} after {_SETTLED} moves, {last:.0f} at the end, {slope:+.1f} per 100 moves")
    print(f"written {given.folder / 'panel-memory.html'}")


if __name__ == "__main__":
    main()
