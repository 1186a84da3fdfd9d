"""The text that a PNG carries, read chunk by chunk: no pixel is decoded, however many a file says that it has."""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Iterator
from io import BufferedReader, FileIO
from pathlib import Path

from workbench.untrusted import Refused, open_regular

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST = 1 << 23  # bytes of a text


def text_in(path: Path, keyword: str) -> str | None:
    """The text by this keyword; None where there is none. Raises OSError for what is no PNG, Refused for a text that is damaged."""
    with BufferedReader(open_regular(path)) as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            raise OSError(errno.EINVAL, "it is no picture that a PNG holds")
        for kind, content in _texts(file):
            name, _, rest = content.partition(b"\0")
            if name == keyword.encode():
                return _decoded(kind, rest)
    return None


def _texts(file: BufferedReader[FileIO]) -> Iterator[tuple[bytes, bytes]]:
    """The chunks that hold text; they may come after the pixels."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"tEXt", b"zTXt", b"iTXt") and length <= _MOST:
            yield kind, file.read(length)
            length = 0
        file.seek(length + 4, 1)  # past its checksum


def _decoded(kind: bytes, rest: bytes) -> str:
    """What follows a text's name: in two of the kinds, how it is packed; in one, its language as well."""
    if kind == b"tEXt":
        return rest.decode("latin-1")
    packed = kind == b"zTXt" or rest[:1] == b"\1"
    if kind == b"zTXt":
        return _unpacked(rest[1:]).decode("latin-1")
    *_, content = rest[2:].split(b"\0", 2)
    try:
        return (_unpacked(content) if packed else content).decode()
    except UnicodeDecodeError as error:
        raise Refused(f"its text is damaged ({error})") from error


def _unpacked(content: bytes) -> bytes:
    engine = zlib.decompressobj()
    try:
        found = engine.decompress(content, _MOST)
    except zlib.error as error:
        raise Refused(f"its text is damaged ({error})") from error
    if engine.unconsumed_tail:
        raise Refused(f"its text has more than {_MOST:,} bytes")
    return found
