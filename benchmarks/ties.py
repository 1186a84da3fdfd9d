"""Times TIES of two SD 1.5-sized checkpoints on their base beside PEFT's, tensor by tensor, on the same files.

python -m benchmarks.ties [--folder out/benchmarks] [--rounds 3]
"""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.arguments import asked
from benchmarks.models import sd15_tensors, write_tuned
from benchmarks.processes import run_python

_RECIPE = """workbench: 1
models: {base: a.safetensors, first: tuned-1.safetensors, second: tuned-2.safetensors}
merge: {operator: ties, inputs: {base: base, models: [first, second]}, options: {density: 0.5}}
"""


def main() -> None:
    arguments = asked(__doc__, rounds=3)
    folder: Path = arguments.folder
    inputs = [folder / name for name in ("a.safetensors", "tuned-1.safetensors", "tuned-2.safetensors")]
    write_tuned(inputs, sd15_tensors())
    recipe, ours, peft = folder / "ties.yaml", folder / "ties.safetensors", folder / "ties-by-peft.safetensors"
    recipe.write_text(_RECIPE)
    ratios, peaks = [], []
    for _ in range(arguments.rounds):
        for out in (ours, peft):
            out.unlink(missing_ok=True)
        seconds, peak = run_python(["-m", "workbench", "merge", str(recipe), "--out", str(ours)], XDG_CACHE_HOME=str(folder / "cache"))
        theirs, their_peak = run_python(["-m", "benchmarks.ties_by_peft", *map(str, inputs), str(peft)])
        ratios.append(theirs / seconds)
        peaks.append(peak)
        print(f"workbench {seconds:.1f} s, peak {peak:.0f} MB; PEFT {theirs:.1f} s, peak {their_peak:.0f} MB", flush=True)
    print(f"median of {len(ratios)}: PEFT takes {statistics.median(ratios):.1f} times as long; peak {max(peaks):.0f} MB anonymous")


if __name__ == "__main__":
    main()
