"""What ComfyUI's embedded graph says: `prompt`, the nodes as they ran, or `workflow`, as they were drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from workbench.analysis.provenance.account import ROOT, Account, Link, Member, described, json_in, mapping, number, shown
from workbench.checkpoint.files.catalogue import SUFFIXES, Mark

_SAVED = ("model", "clip", "vae")  # what a node that saves a model takes
_SIMPLE = ("ModelMergeSimple", "CLIPMergeSimple")  # ratio of the first, the rest of the second
_STRENGTHS = ("strength_model", "strength")

Nodes = Mapping[str, Mapping[str, Any]]


def account(metadata: Mapping[str, str], name: str) -> Account | None:
    """The graph above the node that saved the file called `name`; None where there is none, or it saves no model."""
    for field, read in (("prompt", _of_prompt), ("workflow", _of_workflow)):
        nodes = read(mapping(json_in(metadata, field)))
        savers = [key for key, node in nodes.items() if "Save" in _kind(node) and any(slot in _inputs(node) for slot in _SAVED)]
        if not savers:
            continue
        source = f"ComfyUI's {field}"
        meant = [key for key in savers if _prefix(nodes[key]) and name.startswith(_prefix(nodes[key]))] if len(savers) > 1 else savers
        if len(meant) != 1:
            return Account(source, {}, (f"the graph in {field} saves {len(savers)} models, and does not tell which this is",))
        made = _members(nodes)
        saved = made.get(meant[0], Member())
        root = Member(links=saved.links)
        if len(saved.links) == 1 and not made[saved.links[0].to].is_file:  # one step made all of it: the file is its result
            root = made[saved.links[0].to]
        return Account(source, made | {ROOT: Member(root.mark, root.method, root.links)})
    return None


def _members(nodes: Nodes) -> dict[str, Member]:
    """Every node that a file comes through, and every file that one names."""
    through = _downstream(nodes)
    made: dict[str, Member] = {}
    files = {key: _files(nodes[key]) for key in through}
    loaders = {key: next(iter(one.values())) for key, one in files.items() if len(one) == 1 and not list(_links(nodes[key], through))}
    for key in through:
        node = nodes[key]
        if key in loaders:
            made[key] = Member(Mark.of(loaders[key]))
            continue
        links = list(_links(node, through))
        for slot, file in files[key].items():
            made[f"{key} {slot}"] = Member(Mark.of(file))
            links.append(Link(f"{key} {slot}", slot.removesuffix("_name"), _strength(node)))
        settings = described(
            (slot, value) for slot, value in _inputs(node).items() if not isinstance(value, (list, dict)) and not _is_file(value)
        )
        made[key] = Member(method=f"{_kind(node)}({settings})", links=tuple(links), is_file=False)
    return made


def _links(node: Mapping[str, Any], through: set[str]) -> Iterator[Link]:
    """The nodes that a node takes models from, each once, with what it takes them as."""
    taken: dict[str, list[str]] = defaultdict(list)
    for slot, value in _inputs(node).items():
        if (key := _linked(value)) in through:
            taken[key].append(slot)
    ratio = number(_inputs(node).get("ratio")) if _kind(node) in _SIMPLE else None
    for key, slots in taken.items():
        shares = {} if ratio is None else {"1": ratio, "2": 1 - ratio}
        weight = shares.get(slots[0][-1:]) if len(slots) == 1 else None
        yield Link(key, ", ".join(slots)[:80], "" if weight is None else shown(weight))


def _downstream(nodes: Nodes) -> set[str]:
    """The nodes that name a file, and all that take anything from them; the others hold numbers and prompts."""
    takers: dict[str, list[str]] = defaultdict(list)
    for key, node in nodes.items():
        for value in _inputs(node).values():
            takers[_linked(value)].append(key)
    found: set[str] = set()
    waiting = [key for key, node in nodes.items() if _files(node)]
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            waiting += takers[key]
    return found


def _of_prompt(prompt: Mapping[str, Any]) -> Nodes:
    return {key: node for key, node in prompt.items() if isinstance(node, dict)}


def _of_workflow(workflow: Mapping[str, Any]) -> Nodes:
    """A drawn graph in the form of one that ran: its widgets have no names, but files are told by their suffix."""
    links = workflow.get("links")
    ends = (
        {link[0]: link[1] for link in links if isinstance(link, list) and len(link) > 2 and type(link[0]) is int}
        if isinstance(links, list)
        else {}
    )
    nodes: dict[str, Mapping[str, Any]] = {}
    drawn = workflow.get("nodes")
    for node in drawn if isinstance(drawn, list) else ():
        if not isinstance(node, dict):
            continue
        taken, widgets = node.get("inputs"), node.get("widgets_values")
        inputs: dict[str, Any] = {}
        for one in taken if isinstance(taken, list) else ():
            if isinstance(one, dict) and type(one.get("link")) is int and one["link"] in ends:
                inputs[str(one.get("name"))] = [str(ends[one["link"]]), 0]
        inputs |= {f"widget {at}": value for at, value in enumerate(widgets if isinstance(widgets, list) else ())}
        nodes[str(node.get("id"))] = {"class_type": node.get("type"), "inputs": inputs}
    return nodes


def _kind(node: Mapping[str, Any]) -> str:
    return str(node.get("class_type", ""))[:60]


def _inputs(node: Mapping[str, Any]) -> Mapping[str, Any]:
    found = node.get("inputs")
    return found if isinstance(found, dict) else {}


def _linked(value: Any) -> str:
    """The node that an input comes from; nothing for a value."""
    return str(value[0])[:200] if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)) else ""


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and value.lower().endswith(SUFFIXES)


def _files(node: Mapping[str, Any]) -> dict[str, str]:
    return {slot: value for slot, value in _inputs(node).items() if _is_file(value)}


def _strength(node: Mapping[str, Any]) -> str:
    found = next((value for slot in _STRENGTHS if (value := number(_inputs(node).get(slot))) is not None), None)
    return "" if found is None else shown(found)


def _prefix(node: Mapping[str, Any]) -> str:
    """What the name of a file that the node saves begins with."""
    prefixes = [value for slot, value in _inputs(node).items() if slot in ("filename_prefix", "widget 0") and isinstance(value, str)]
    return PurePosixPath(prefixes[0].replace("\\", "/")).name if prefixes else ""
