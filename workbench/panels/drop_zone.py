"""`DropZone`: takes files that are dropped onto the panel around it, or chosen. What the browser does is in `drop_zone.js`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import anywidget

from workbench.panels.callbacks import on_message

Told = Callable[[bytes, str, int, bytes], None]

_HERE = Path(__file__).parent


@final
class DropZone(anywidget.AnyWidget):
    """Tells `dropped(content, name, size, samples)` of every file, of `size` bytes in all: of a safetensors file only its header is sent.

    The samples of a model are those by which `dropped_model` finds it. Of what is dropped where models are chosen it tells `chosen(...)`.
    """

    _esm = _HERE / "drop_zone.js"

    def __init__(self, dropped: Told, chosen: Told) -> None:
        self._dropped, self._chosen = dropped, chosen
        super().__init__()
        on_message(self, self._received)

    def _received(self, told: Mapping[str, Any], buffers: Sequence[memoryview | bytes]) -> None:
        tell = self._chosen if told.get("onto") == "models" else self._dropped
        content, samples = (bytes(buffers[i]) if i < len(buffers) else b"" for i in range(2))
        tell(content, str(told["name"]), int(told["size"]), samples)
