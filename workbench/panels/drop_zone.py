"""`DropZone`: takes files that are dropped onto the panel around it, or chosen. What the browser does is in `drop_zone.js`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import anywidget

from workbench.panels.callbacks import on_message

_HERE = Path(__file__).parent


@final
class DropZone(anywidget.AnyWidget):
    """Tells `dropped(content, name, size)` of every file: of a safetensors file only its header is sent, of `size` bytes in all.

    Of those that are dropped where models are chosen it tells `chosen(...)` in its place.
    """

    _esm = _HERE / "drop_zone.js"

    def __init__(self, dropped: Callable[[bytes, str, int], None], chosen: Callable[[bytes, str, int], None]) -> None:
        self._dropped, self._chosen = dropped, chosen
        super().__init__()
        on_message(self, self._received)

    def _received(self, content: Mapping[str, Any], buffers: Sequence[memoryview | bytes]) -> None:
        tell = self._chosen if content.get("onto") == "models" else self._dropped
        tell(bytes(buffers[0]) if buffers else b"", str(content["name"]), int(content["size"]))
