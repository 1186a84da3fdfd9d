"""`lineage`: the family tree of a file, from what its header, and those of its parents that are found, say of how they were made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from workbench.analysis.provenance import comfyui_graphs, mecha_recipes, merge_recipes, training_notes
from workbench.analysis.provenance.account import ROOT, Account, Link, Member
from workbench.analysis.provenance.lineage_result import Ancestor, Basis, Lineage
from workbench.analysis.provenance.measuring import proposed
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files.catalogue import SAFETENSORS, SUFFIXES, Catalogue, Mark, Match, absolute
from workbench.checkpoint.files.hub import is_address
from workbench.checkpoint.files.safetensors_file import SafetensorsFile
from workbench.errors import CheckpointError
from workbench.wording import listed

_MOST, _DEEPEST = 1000, 40  # nodes of a tree, and levels: more is said, and not shown
_UNKNOWN = "parents unknown"


def lineage(path: str | os.PathLike[str], among: str | os.PathLike[str] | None = None, *, progress: bool = True) -> Lineage:
    """The family tree of a file as far as headers tell it: what it was made of, how, and what that was made of in turn.

    What is read: Workbench's own recipes, `sd_merge_recipe` and `sd_merge_models` (AUTOMATIC1111, Forge, SuperMerger, Chattiori),
    sd-mecha's `mecha_recipe`, ComfyUI's graph in `prompt` or `workflow`, `modelspec.merged_from`, kohya's `ss_sd_model_*`; of
    several the first. With `among`, a folder, parents are found in it by their hash, renamed or not, and where only a name is
    told by name, which the tree says; the headers of those that are found lead further. Where the file's own header is silent,
    `recover` proposes which of the folder's files it is a weighted sum of: measured, with its residual, and never mixed with what is told.

    Metadata is what somebody wrote: it is shown as such, bounded, and what is in no header is unknown.
    Raises CheckpointError for a file that cannot be opened, and for `among` that is no folder.
    """
    place = None if is_address(path) else absolute(path)
    header = header_of(path)
    catalogue = None if among is None else Catalogue(among, progress=progress)
    name = Path(str(path)).name
    told = accounts(header, Path(name).stem)
    root = Ancestor(name, file=place, found_by="given", source=Basis.FILE)
    growing = _Growing(catalogue)
    if told:
        rows = growing.tree(root, told)
    elif catalogue is not None and place is not None and place.is_file():
        rows = growing.measured(root, place, progress)
    else:
        silent = f"{_UNKNOWN}: its header says nothing of them"
        rows = [
            replace(root, note=silent if catalogue else f"{silent}; give the folder of what it may be made of as `among`, to measure it")
        ]
    return Lineage(tuple(rows), None if catalogue is None else catalogue.folder, growing.notes())


def header_of(path: str | os.PathLike[str]) -> Mapping[str, str]:
    """What the header of a file or folder says; of a safetensors file without judging its tensors, of a pickle or a GGUF nothing."""
    file = None if is_address(path) else absolute(path)
    if file is not None and file.is_file() and file.suffix.lower() in SAFETENSORS:
        return SafetensorsFile(file).metadata
    if file is not None and file.is_file() and file.suffix.lower() in SUFFIXES:
        return {}
    return open_checkpoint(path).metadata


def accounts(header: Mapping[str, str], name: str) -> list[Account]:
    """What each program's fields in a header tell of the parents of the file called `name`, the most telling first."""
    found = (
        merge_recipes.account(header),
        mecha_recipes.account(header),
        comfyui_graphs.account(header, name),
        training_notes.merged_from(header),
        training_notes.training(header),
    )
    return sorted((one for one in found if one is not None and (one.telling or one.notes)), key=lambda one: not one.telling)


@dataclass(frozen=True)
class _Branch:
    """A member that is still to be shown: below which row, and whose account it is."""

    account: Account
    link: Link
    parent: int
    number: int  # of the account: members of two may have the same key


@dataclass
class _Growing:
    """A tree in the making, row by row; every file's parents are shown once."""

    catalogue: Catalogue | None
    rows: list[Ancestor] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)  # what was shown with its parents -> its row
    left_out: int = 0
    read: int = 0  # accounts

    def tree(self, root: Ancestor, told: list[Account]) -> list[Ancestor]:
        """The rows of a file whose header tells something, depth first."""
        account, others = told[0], [one.source for one in told[1:] if one.telling]
        also = f"{listed(others)} in the same header {'is' if len(others) == 1 else 'are'} not shown" if others else ""
        method = account.root.method
        self.rows.append(replace(root, method=method, told_by=account.source, note="; ".join(filter(None, [*account.notes, also]))))
        if root.file is not None:
            self.places[str(root.file)] = 0
        if not account.telling:
            self.rows[0] = replace(self.rows[0], told_by="", note=f"{_UNKNOWN}: {self.rows[0].note}")
        self._grow([_Branch(account, link, 0, 0) for link in account.root.links])
        return self.rows

    def measured(self, root: Ancestor, place: Path, progress: bool) -> list[Ancestor]:
        """The rows of a file whose header is silent: what numbers propose, each with what its own header tells."""
        assert self.catalogue is not None
        proposal = proposed(place, self.catalogue, _named_in, progress=progress)
        root = replace(root, method=proposal.method, residual=proposal.residual, note=proposal.note, told_by=proposal.told_by)
        self.rows.append(root)
        for path, weight in proposal.weights.items():
            own, at = self._own(path), len(self.rows)
            row = Ancestor(
                path.name, 1, 0, "measured", weight, source=Basis.MEASURED, file=path, found_by="measured", residual=root.residual
            )
            made = own.root if own else Member()
            self.rows.append(_with_parents(replace(row, method=made.method), own))
            self._grow([_Branch(own, link, at, self.read) for link in made.links] if own else [])
        return self.rows

    def notes(self) -> tuple[str, ...]:
        """What there is to know of the tree as a whole."""
        cut = [f"{self.left_out} more that the metadata names are left out: a tree has at most {_MOST} nodes"] if self.left_out else []
        unread = self.catalogue.unread if self.catalogue else ()
        return (*cut, *(f"not looked into: {text}" for text in unread[:5]), *([f"and {len(unread) - 5} more"] if len(unread) > 5 else []))

    def _grow(self, branches: list[_Branch]) -> None:
        """Add the rows of members and of all below them, depth first."""
        waiting = branches[::-1]
        while waiting:
            branch = waiting.pop()
            if len(self.rows) >= _MOST:
                self.left_out += 1
            else:
                waiting += list(self._shown(branch))[::-1]

    def _shown(self, branch: _Branch) -> Iterator[_Branch]:
        """Add the row of a member; what is to be shown below it."""
        member, above = branch.account.members.get(branch.link.to, Member()), self.rows[branch.parent]
        match = self.catalogue.find(member.mark) if self.catalogue and member.is_file else Match()
        # a file of the same name may be another: what is told of the one that is meant goes first
        own = self._own(match.path) if match.path and not (match.by == "name" and member.links) else None
        account, number, made = (own, self.read, own.root) if own else (branch.account, branch.number, member)
        row = Ancestor(
            _name(member, match),
            above.depth + 1,
            branch.parent,
            branch.link.role,
            branch.link.weight,
            made.method,
            _basis(member, match),
            hash=member.mark.hash,
            file=match.path,
            found_by=match.by,
            note=match.note,
        )
        row, below = _with_parents(row, account if made.links else None), made.links
        if below:
            below, row = self._once(row, below, str(match.path or member.mark.sha256 or f"{branch.number} {branch.link.to}"))
        at = len(self.rows)
        self.rows.append(row)
        for link in below:
            yield _Branch(account, link, at, number)

    def _once(self, row: Ancestor, below: tuple[Link, ...], who: str) -> tuple[tuple[Link, ...], Ancestor]:
        """Nothing below what was shown before, or is its own ancestor, or lies too deep."""
        if row.depth >= _DEEPEST:
            return (), replace(row, note=f"deeper than {_DEEPEST} levels is not shown")
        if (before := self.places.setdefault(who, len(self.rows))) == len(self.rows):
            return below, row
        above = row.parent
        while above is not None and above != before:
            above = self.rows[above].parent
        circle = "a circle: the metadata names it among its own ancestors" if above == before else "its parents are shown above"
        return (), replace(row, note="; ".join(filter(None, [row.note, circle])))

    def _own(self, path: Path) -> Account | None:
        """What the header of a file that was found tells of its own parents."""
        try:
            told = accounts(header_of(path), path.stem)
        except CheckpointError:
            return None  # a damaged file; that it is the one is told by its hash
        self.read += 1
        return told[0] if told and told[0].telling else None


def _named_in(file: Path) -> tuple[Mark, ...]:
    """The files that a file's header names as its ancestors."""
    try:
        told = accounts(header_of(file), file.stem)
    except CheckpointError:
        return ()
    return tuple(member.mark for one in told for key, member in one.members.items() if key != ROOT and member.is_file)


def _name(member: Member, match: Match) -> str:
    """What a row is called: as told, as the file that was found, by its hash, or by what the step does."""
    if member.mark.name or match.path:
        return member.mark.name or match.path.name if match.path else member.mark.name
    return (member.mark.hash[:10] or "unknown") if member.is_file else member.method.partition("(")[0]


def _basis(member: Member, match: Match) -> Basis:
    if not member.is_file:
        return Basis.STEP
    if match.path is None:
        return Basis.TOLD
    return Basis.NAME if match.by == "name" else Basis.HASH


def _with_parents(row: Ancestor, account: Account | None) -> Ancestor:
    """A row with who tells of its parents, or that they are unknown."""
    if account is not None:
        return replace(row, told_by=account.source)
    if row.source is Basis.STEP:
        return row
    unknown = f"{_UNKNOWN}: its header says nothing of them" if row.file else _UNKNOWN
    return replace(row, note="; ".join(filter(None, [row.note, unknown])))
