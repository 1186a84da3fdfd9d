"""Ways to damage a file: in its bytes, in the JSON or YAML in it, in the archive that it is. Each takes bytes and gives bytes."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import yaml

Way = Callable[[bytes, random.Random], bytes]

_NUMBERS = (0, 1, -1, 255, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), 10**40)
_LARGEST = 1 << 20


def _hostile(chance: random.Random) -> Any:
    """A value that nobody expects."""
    deep: Any = []
    for _ in range(chance.choice([3, 50, 900])):
        deep = [deep]
    return chance.choice([
        None, True, "", [], {}, [[]], {"": ""}, 0.5, float("nan"), float("inf"), 1e400, chance.choice(_NUMBERS), chance.choice(_NUMBERS),
        "x" * chance.choice([1, 300, 5000]), "../../../etc/passwd", "/etc/passwd", "C:\\x", "a\0b", "\x1b[2J", "é\u202e", "~nobody/x",
        "\ud800", [1, [2, [3]]], {"a": {"a": {}}}, "9" * 5000, ["x"] * 1000, deep,
    ])  # fmt: skip


def edited(value: Any, chance: random.Random) -> Any:
    """The same data with one place of it changed, removed, doubled or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        way = chance.random()
        if way < 0.1:
            return {other: one for other, one in value.items() if other != name}
        if way < 0.2:
            return {(str(_hostile(chance))[:300] if other == name else other): one for other, one in value.items()}
        return value | {name: edited(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        way = chance.random()
        if way < 0.1:
            return value[:place] + value[place + 1 :]
        if way < 0.2:
            return value + value[place:]
        return [*value[:place], edited(value[place], chance), *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.5:
        return value + chance.choice([-8, -1, 1, 4, 8, 1 << 32])
    return _hostile(chance)


def raw(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, a piece cut, doubled, zeroed, or a number put anywhere."""
    if not content:
        return bytes([chance.randrange(256)])
    data, at = bytearray(content), chance.randrange(min(len(content), chance.choice([64, 1 << 30])))
    end = min(len(data), at + chance.choice([1, 4, 8, 100]))
    way = chance.randrange(6)
    if way == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif way == 1:
        del data[at:]
    elif way == 2:
        del data[at:end]
    elif way == 3:
        data[at:at] = data[at:end] * chance.choice([1, 2, 100])
    elif way == 4:
        data[at:end] = bytes(end - at)
    else:
        data[at : at + 8] = struct.pack("<Q", chance.choice(_NUMBERS) % (1 << 64))
    return bytes(data[:_LARGEST])


def _json(value: Any) -> bytes:
    return json.dumps(value).encode(errors="surrogatepass")


def as_json(content: bytes, chance: random.Random) -> bytes:
    """JSON, with one place of it changed."""
    try:
        return _json(edited(json.loads(content), chance))
    except (ValueError, RecursionError):
        return raw(content, chance)


def as_yaml(content: bytes, chance: random.Random) -> bytes:
    """YAML, with one place of it changed, or an alias in it."""
    try:
        if chance.random() < 0.2:
            lines = content.decode().splitlines()
            at = chance.randrange(len(lines))
            lines[at] += chance.choice([" &a", " *a", " !!python/object/apply:os.mkdir [run]", " {", " - ", ": :", " <<: *a", " |"])
            return "\n".join(lines).encode()
        return yaml.safe_dump(edited(yaml.safe_load(content), chance), sort_keys=False).encode(errors="surrogatepass")
    except (ValueError, RecursionError, TypeError, yaml.YAMLError):
        return raw(content, chance)


def as_header(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose header is changed, and as long as it says."""
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = _json(edited(json.loads(content[8 : 8 + length]), chance))
    except (ValueError, RecursionError, struct.error):
        return raw(content, chance)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def as_metadata(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose metadata holds JSON that is changed."""
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        name = chance.choice(list(header["__metadata__"]))
        header["__metadata__"][name] = as_json(header["__metadata__"][name].encode(), chance).decode(errors="replace")
        written = _json(header)
    except (ValueError, RecursionError, struct.error, LookupError, TypeError, AttributeError):
        return raw(content, chance)
    return struct.pack("<Q", len(written)) + written + content[8 + length :]


def as_archive(content: bytes, chance: random.Random) -> bytes:
    """A zip archive of which one entry is damaged, left out, renamed or packed otherwise."""
    made = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
            names = old.namelist()
            chosen, way = chance.choice(names), chance.randrange(5)
            for name in names:
                entry, how = old.read(name), zipfile.ZIP_STORED
                if name == chosen:
                    if way == 0:
                        continue
                    if way == 1:
                        how = zipfile.ZIP_DEFLATED
                    entry = raw(entry, chance) if way > 2 else entry
                new.writestr(f"../{name}" if name == chosen and way == 2 else name, entry, how)
    except (ValueError, OSError, LookupError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, UserWarning):
        return raw(content, chance)
    return made.getvalue()


def as_chunk(content: bytes, chance: random.Random) -> bytes:
    """A PNG of which a chunk is changed, with the checksum that it has to have."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append([content[at + 4 : at + 8], content[at + 8 : at + 8 + length]])
        at += 12 + length
    if not chunks:
        return raw(content, chance)
    chunk = chance.choice(chunks)
    if chunk[0] == b"iTXt" and chance.random() < 0.7:
        head, _, text = chunk[1].partition(b"\0\x01\0\0\0")
        try:
            text = as_json(zlib.decompress(text), chance)
        except zlib.error:
            text = raw(text, chance)
        chunk[1] = head + b"\0\x01\0\0\0" + zlib.compress(text)
    else:
        chunk[1] = raw(chunk[1], chance)
    packed = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    return content[:8] + b"".join(packed)
