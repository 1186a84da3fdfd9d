"""Finds and loads the tokenizer that belongs to a text encoder: in a folder, or on the hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import TextEncoderError

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

DEFAULT_TOKENIZER = "openai/clip-vit-large-patch14"

_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
_PASS_ONE = "pass tokenizer= with the tokenizer folder of a pipeline"


def tokenizer_beside(configs: Iterable[Path | None]) -> str:
    """The folder of the tokenizer that belongs to an encoder's config, or the name of the public one."""
    folders = (folder for config in configs if config is not None for folder in (config, config.parent / "tokenizer"))
    return str(next((folder for folder in folders if _has_words(folder)), DEFAULT_TOKENIZER))


def load_tokenizer(place: str) -> CLIPTokenizer:
    """From a folder, or by its name on the hub: its local files, and where there are none it is fetched. Raises TextEncoderError."""
    from transformers import CLIPTokenizer

    folder = Path(place) if Path(place).is_dir() else _downloaded(place)
    if not _has_words(folder):  # transformers would make an empty one
        raise TextEncoderError(f"{place}: holds no CLIP tokenizer (tokenizer.json or vocab.json); {_PASS_ONE}")
    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise TextEncoderError(f"{place}: transformers cannot read this tokenizer ({_first_line(error)}); {_PASS_ONE}") from error


def _downloaded(name: str) -> Path:
    """The folder of the hub's local files of a tokenizer; what is not there yet is fetched."""
    from huggingface_hub import snapshot_download

    reason: Exception | None = None
    for local in (True, False):
        try:
            folder = Path(snapshot_download(name, allow_patterns=list(_FILES), local_files_only=local))
        except (OSError, ValueError) as error:
            reason = error
            continue
        if _has_words(folder) or not local:  # other files of the same name may have been fetched before
            return folder
    raise TextEncoderError(
        f"{name}: is no folder, and no tokenizer of this name is among the hub's local files or can be fetched now "
        f"({_first_line(reason)}); {_PASS_ONE}"
    )


def _first_line(error: Exception | None) -> str:
    return str(error).strip().partition("\n")[0]


def _has_words(folder: Path) -> bool:
    """Whether the words of a tokenizer lie in a folder."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
