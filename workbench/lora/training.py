"""What a LoRA's header tells of its training: words and settings, as kohya's tools, ModelSpec and others write them, unchecked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.untrusted import MOST_LEVELS, Refused, parse_json

_LONG = 200  # letters of a setting; what is longer is data (counts of tags, buckets, a thumbnail)
_SILENT = ("", "None", "null")
_FOLDER = re.compile(r"\d+_(.+)")  # kohya's folders of pictures: how often each is seen, and the words that it is trained with
_FREQUENCY, _FOLDERS, _SETS, _PHRASE = "ss_tag_frequency", "ss_dataset_dirs", "ss_datasets", "modelspec.trigger_phrase"


@dataclass(frozen=True)
class Training:
    """What a header tells. `words` are the captions' tags with the number of pictures that have them, most frequent first.

    `triggers` are the words that the LoRA is called by, as far as that is told: ModelSpec's trigger phrase, and the words in the names of
    kohya's folders. `settings` is the header's other text, but for what is longer than a line.
    """

    words: Mapping[str, int]
    triggers: tuple[str, ...]
    settings: Mapping[str, str]
    notes: tuple[str, ...]


def training_of(header: Mapping[str, str]) -> Training:
    """What a header tells of training; what cannot be read in it is a note."""
    notes: list[str] = []
    counted, folders, sets = (_parsed(header, name, notes) for name in (_FREQUENCY, _FOLDERS, _SETS))
    tables = [counted, *(one.get("tag_frequency") for one in (sets if isinstance(sets, list) else []) if isinstance(one, Mapping))]
    words: Counter[str] = Counter()
    for tags in (tags for table in tables if isinstance(table, Mapping) for tags in table.values() if isinstance(tags, Mapping)):
        words.update({str(tag).strip(): count for tag, count in tags.items() if isinstance(count, int)})
    names = [name for found in (counted, folders) if isinstance(found, Mapping) for name in found]
    triggers = [header.get(_PHRASE, ""), *(match[1] for name in names if (match := _FOLDER.fullmatch(str(name))))]
    return Training(dict(words.most_common()), tuple(dict.fromkeys(filter(None, triggers))), dict(_settings(header)), tuple(notes))


def _settings(header: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(header):
        if name not in ("format", _FREQUENCY, _FOLDERS, _SETS) and header[name] not in _SILENT and len(header[name]) <= _LONG:
            yield name, header[name]


def _parsed(header: Mapping[str, str], name: str, notes: list[str]) -> Any:
    try:
        return parse_json(header.get(name, "null"), levels=MOST_LEVELS)
    except Refused as error:
        notes.append(f"{name} in its header cannot be read: {error}")
        return None
