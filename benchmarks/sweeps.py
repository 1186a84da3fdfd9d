"""Draws a sweep of the embedded family and plots the process's memory over its cells: it must stay flat.

python -m benchmarks.sweeps [--cells 100] [--folder out/benchmarks]
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

import workbench as wb
from benchmarks.arguments import asked
from workbench import figures
from workbench.render import ClipScorer

_SETTLED = 10  # cells after which everything that is loaded once has been


def measured(cells: int, folder: Path) -> pd.DataFrame:
    """Seconds and resident memory in MB after each cell."""
    base, heart, moon = (wb.open(f"data/shapes-sd/{name}.safetensors") for name in ("base", "heart", "moon"))
    process, rows, began = psutil.Process(), [], time.monotonic()

    def memory(images: object, prompts: list[str]) -> list[float]:
        rows.append({"cell": len(rows) + 1, "seconds": time.monotonic() - began, "MB": process.memory_info().rss / 1e6})
        return [rows[-1]["MB"]] * len(prompts)

    found = wb.sweep(
        wb.operators.ties,
        {"density": np.linspace(0.05, 1, cells)},
        inputs={"base": base, "models": [heart, moon]},
        prompts=["a red heart on a white background", "a yellow moon on a black background"],
        seeds=range(4),
        steps=6,
        score=[ClipScorer("data/shapes-clip"), memory],
        name="sweep",
        folder=folder,
    )
    assert found.drawn == cells
    return pd.DataFrame(rows)


def main() -> None:
    given = asked(__doc__, cells=100)
    shutil.rmtree(given.folder / "sweep", ignore_errors=True)  # what is there would not be drawn again
    frame = measured(given.cells, given.folder)
    frame.to_csv(given.folder / "sweep-memory.csv", index=False, float_format="%.6g")
    figure = figures.lines(frame, x="cell", y="MB", title="Resident memory of a sweep over its cells").update_yaxes(rangemode="tozero")
    figure.write_html(given.folder / "sweep-memory.html", include_plotlyjs=True)
    rest = frame[frame["cell"] > _SETTLED]
    slope = np.polyfit(rest["cell"], rest["MB"], 1)[0]
    first, last = rest["MB"].iloc[0], rest["MB"].iloc[-1]
    print(f"{given.cells} cells of 8 pictures in {frame['seconds'].iloc[-1]:.0f} s")
    print(f"memory after cell {_SETTLED}: {first:.0f} MB, at the end {last:.0f} MB, {slope * 100:+.1f} MB per 100 cells")
    print(f"written {given.folder / 'sweep-memory.html'}")


if __name__ == "__main__":
    main()
