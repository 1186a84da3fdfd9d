"""A Python that stays, as a notebook's kernel does, and says how long a line took. What it is asked to run lies in `ours`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Kernel:
    """A process that runs lines of Python in turn; it starts with the first."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def seconds(self, before: str, timed: str) -> float:
        """Seconds of `timed`, right after `before`, whose names it sees. Raises SystemExit with the traceback of what goes wrong."""
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([before, timed]) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit(f"the kernel ended with {process.wait()}; what it wrote is in {self._log}")
        found = json.loads(answer)
        if "error" in found:
            raise SystemExit(found["error"])
        return float(found["seconds"])

    def _started(self) -> subprocess.Popen[str]:
        with self._log.open("w", encoding="utf-8") as log:
            command = [sys.executable, "-m", "benchmarks.side_by_side.kernel"]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.communicate()  # closes its input, at whose end it ends


def _answer(before: str, timed: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    try:
        exec(before, names)
        began = time.perf_counter()
        exec(timed, names)
        return {"seconds": time.perf_counter() - began}
    except Exception:
        return {"error": traceback.format_exc()}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what is printed meanwhile is no answer
    for line in sys.stdin:
        print(json.dumps(_answer(*json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
