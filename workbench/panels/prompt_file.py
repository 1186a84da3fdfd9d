"""`PromptFile`: a text file that is chosen in the browser, for what `prompts` makes of it. What the browser does is in `prompt_file.js`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import anywidget

from workbench.panels.callbacks import on_message

_HERE = Path(__file__).parent


@final
class PromptFile(anywidget.AnyWidget):
    """Tells `chosen(content, name)` of every file that is chosen."""

    _esm = _HERE / "prompt_file.js"

    def __init__(self, chosen: Callable[[bytes, str], None]) -> None:
        self._chosen = chosen
        super().__init__()
        on_message(self, self._received)

    def _received(self, content: Mapping[str, Any], buffers: Sequence[memoryview | bytes]) -> None:
        self._chosen(bytes(buffers[0]) if buffers else b"", str(content["name"]))
