"""What a PyTorch file would cost to unpickle, judged from its bytes before anything is: opcodes, compression, tuples of tuples."""

from __future__ import annotations

import io
import pickletools
import zipfile
from typing import BinaryIO

from workbench.untrusted import Refused

_MOST_BYTES = 1 << 24  # of opcodes: a state dict takes some 200 for each tensor
_FEWEST = 100_000  # opcodes that any file may have; a state dict takes some 40 for each tensor
_BYTES_EACH = 1024  # for one more opcode: what holds many tensors is a large file
_HEAVIEST = 1_000_000  # tuples in tuples, those that are there twice counted twice: torch hashes and compares them
_STREAMS = 5  # pickles that lie one after another in a file of before torch 1.6
_ROOMY = ("builtins bytearray", "__builtin__ bytearray")  # torch would make one of any size


def check(file: BinaryIO, size: int) -> None:
    """Raise Refused for a file that would take long to unpickle, or much memory. What is damaged otherwise is left to torch to say."""
    file.seek(0)
    zipped = file.read(4) == b"PK\x03\x04"
    most = _FEWEST + size // _BYTES_EACH
    if zipped:
        for content in _pickles(file, size):
            _check_stream(io.BytesIO(content), most)
    else:
        file.seek(0)
        head = io.BytesIO(file.read(_MOST_BYTES))
        for _ in range(_STREAMS):
            most -= _check_stream(head, most)
    file.seek(0)


def _pickles(file: BinaryIO, size: int) -> list[bytes]:
    """The lists of contents in an archive. Raises Refused where one is packed: torch packs none, and a small file could hold any."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                    told = f"{entry.filename[:200]!r} in it is compressed, which torch.save never does, so it is not unpacked"
                    raise Refused(f"{told}; save the state dict again with torch.save")
            named = [entry for entry in entries if entry.filename.endswith(".pkl")]
            if (total := sum(entry.file_size for entry in named)) > min(size, _MOST_BYTES):
                raise Refused(f"its list of contents has {total:,} bytes, at most {_MOST_BYTES:,} are read; save the state dict alone")
            return [archive.read(entry) for entry in named]
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, Refused):
            raise
        return []


def _check_stream(stream: io.BytesIO, most: int) -> int:
    """How many opcodes a pickle has. Raises Refused for more than so many, or what they would build."""
    count, weights = 0, _Weights()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream), 1):
            if count > most:
                raise Refused(f"its list of contents has more than {most:,} opcodes, too many for its size; save the state dict alone")
            if opcode.name == "GLOBAL" and argument in _ROOMY:
                raise Refused("it holds a bytearray, which no state dict has; save the state dict alone")
            weights.after(opcode.name, argument)
    except Refused:
        raise
    except Exception:  # genops raises anything for what is damaged, and torch will say so
        pass
    return count


class _Weights:
    """How many tuples a tuple holds, those that it holds twice counted twice, from the opcodes that make and name them again."""

    def __init__(self) -> None:
        self._frames = [0]  # what lies between marks
        self._named: dict[int, int] = {}
        self._last = 0  # of the tuple just made; 0 for anything else
        self._again = 0  # of all that were named again

    def after(self, name: str, argument: object) -> None:
        """Take one opcode into account. Raises Refused."""
        made = 0
        if name == "MARK":
            self._frames.append(0)
        elif name == "TUPLE":
            made = 1 + self._pop()
            self._frames[-1] += made
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            made = self._frames[-1] = 1 + self._frames[-1]
        elif name in ("SETITEMS", "APPENDS"):
            self._pop()
        elif name in ("BINPUT", "LONG_BINPUT") and isinstance(argument, int):
            self._named[argument] = made = self._last
        elif name in ("BINGET", "LONG_BINGET") and isinstance(argument, int):
            weight = self._named.get(argument, 0)
            self._frames[-1] += weight
            self._again += weight
        self._last = made
        if self._again > _HEAVIEST:
            raise Refused("it holds tuples of tuples without end; save the state dict alone")

    def _pop(self) -> int:
        return self._frames.pop() if len(self._frames) > 1 else 0
