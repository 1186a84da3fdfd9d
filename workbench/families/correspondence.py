"""What one tensor of an original layout (LDM, BFL, OpenCLIP) is in diffusers' layout, by name. Each family says what its own are."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

ComponentLayout = Literal["original", "diffusers"]  # that a component has: LDM's, BFL's, OpenCLIP's, or diffusers'
ORIGINAL: Final = "original"
DIFFUSERS: Final = "diffusers"


class Form(enum.Enum):
    """How the numbers of an original tensor lie, beside how diffusers has them."""

    SAME = "same"
    TRANSPOSED = "transposed"
    CONVOLUTION = "convolution"  # 1x1, where diffusers has a matrix
    FLAT = "flat"  # one dimension, where diffusers has a table


@dataclass(frozen=True)
class Slice:
    """A tensor in diffusers, or the `at`-th of equal parts of one, as rows of an original tensor: its `share` beside its neighbours'."""

    name: str
    share: int = 1
    at: int = 0


@dataclass(frozen=True)
class Correspondence:
    """A tensor of an original layout, and the slices that its rows are in diffusers, from the first row to the last.

    `rows` is how many rows diffusers' table has where the original is flat.
    """

    original: str
    slices: tuple[Slice, ...]
    form: Form = Form.SAME
    rows: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors in diffusers, each once."""
        return tuple(dict.fromkeys(one.name for one in self.slices))

    @property
    def shares(self) -> int:
        return sum(one.share for one in self.slices)

    def parts(self, name: str) -> int:
        """In how many equal parts a tensor of diffusers is found in the original."""
        return sum(one.name == name for one in self.slices)


class Lookup(Protocol):
    """The correspondences of one model's tensors."""

    def unknown(self) -> list[str]:
        """The names that the way to the original layout does not know, and so cannot take along."""

    def find(self, name: str) -> Correspondence | None:
        """That of a tensor, by its name in either layout; None where both have the same name, or neither has it."""


class Conversion(Protocol):
    """How the two layouts of a component are converted; asked with the names of a model, since some depend on its depth."""

    @property
    def reason(self) -> str:
        """Why it cannot be converted; empty where it can."""

    @property
    def costly(self) -> bool:
        """Whether a look-up loads diffusers, which takes seconds; opening and inspecting a file must not."""

    def lookup(self, names: Iterable[str]) -> Lookup:
        """The correspondences of a model whose tensors, without prefix, have these names."""


@dataclass(frozen=True)
class Unchanged:
    """Both layouts have the same names; or only one of them is known, and it has `reason` to say so."""

    reason: str = ""
    costly: bool = False  # see `Conversion`

    def lookup(self, names: Iterable[str]) -> Unchanged:
        return self

    def find(self, name: str) -> None:
        return None

    def unknown(self) -> list[str]:
        return []


class Table:
    """Correspondences by template, found by the name of a tensor in either layout.

    A template maps the original's name to its slices, joined by ` + `. `#` stands for any number, `*` at the end for `weight` and
    for `bias`; `4:name` has four shares of the rows, and `name[1]` is the second of the parts of `name`.
    """

    costly, reason = False, ""

    def __init__(self, templates: Mapping[str, str], forms: Mapping[str, Form] | None = None) -> None:
        self._known: dict[str, list[tuple[re.Pattern[str], Correspondence]]] = {}
        for original, described in templates.items():
            for end in ("weight", "bias") if original.endswith("*") else ("",):
                slices = tuple(_slice(one.replace("*", end)) for one in described.split(" + "))
                one = Correspondence(original.replace("*", end), slices, (forms or {}).get(original, Form.SAME))
                for name in (one.original, *one.names):
                    pattern = re.compile(re.escape(name).replace(r"\#", r"(\d+)"))
                    self._known.setdefault(_DIGITS.sub("#", name), []).append((pattern, one))

    def lookup(self, names: Iterable[str]) -> Table:
        """Itself: templates hold at every depth."""
        return self

    def unknown(self) -> list[str]:
        """See `Lookup.unknown`: what is in no template keeps its name."""
        return []

    def find(self, name: str) -> Correspondence | None:
        """See `Lookup.find`."""
        for pattern, one in self._known.get(_DIGITS.sub("#", name), ()):
            if found := pattern.fullmatch(name):
                return _filled(one, found.groups())
        return None


_DIGITS = re.compile(r"(?<=\.)\d+(?=\.)")
_SLICE = re.compile(r"(?:(\d+):)?([^\[]+)(?:\[(\d+)\])?")


def _slice(described: str) -> Slice:
    share, name, at = _SLICE.fullmatch(described).groups()  # type: ignore[union-attr]
    return Slice(name, int(share or 1), int(at or 0))


def _filled(one: Correspondence, numbers: Iterable[str]) -> Correspondence:
    def fill(name: str) -> str:
        for number in numbers:
            name = name.replace("#", number, 1)
        return name

    return Correspondence(fill(one.original), tuple(Slice(fill(part.name), part.share, part.at) for part in one.slices), one.form)
