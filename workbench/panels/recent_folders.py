"""The folders that models were lately taken from, remembered from session to session; nothing that goes wrong with that stops anybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import platformdirs

from workbench.checkpoint.files.writing import replacing
from workbench.errors import WorkbenchError

MOST: Final = 12
_LONGEST = 1 << 20  # bytes of a file that is read


def recent_folders() -> list[str]:
    """The folders, the latest first; none where nothing can be read."""
    try:
        place = _place()
        found = json.loads(place.read_text(encoding="utf-8")) if place.stat().st_size < _LONGEST else []
    except (OSError, ValueError, RecursionError):
        return []
    return [one for one in found if isinstance(one, str)][:MOST] if isinstance(found, list) else []


def remember_folder(folder: Path) -> None:
    """Put a folder first; where that cannot be written it is forgotten with the session."""
    latest = str(folder.absolute())
    folders = [latest, *(one for one in recent_folders() if one != latest)][:MOST]
    try:
        place = _place()
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as temporary:
            temporary.write_text(json.dumps(folders, ensure_ascii=False), encoding="utf-8")
    except (OSError, ValueError, WorkbenchError):
        return


def _place() -> Path:
    return platformdirs.user_config_path("workbench") / "recent_folders.json"
