"""What sd-mecha's `mecha_recipe` says: lines of instructions, each of which may take the results of earlier ones, `&3`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice

from workbench.analysis.provenance.account import LONGEST, ROOT, Account, Link, Member, described
from workbench.checkpoint.files.catalogue import Mark

FIELD = "mecha_recipe"
_MOST = 10_000  # instructions
_WORD = re.compile(r'(?:(\w+)=)?(?:"((?:[^"\\]|\\.)*)"|(\S+))')  # `alpha=0.5`, `"a name"`, `&3`
_FILES = {"model": "", "lora": "LoRA"}
_STEPS = ("merge", "call")  # since version 0.1.0, and before
_UNTOLD = ("model_config", "model_arch", "model_type", "merge_space")  # of no matter for where a file comes from


def account(metadata: Mapping[str, str]) -> Account | None:
    """The graph of the recipe, whose last instruction is the file; None where there is none."""
    text = metadata.get(FIELD, "")
    lines = [line.strip() for line in islice(text[:LONGEST].splitlines(), _MOST + 1)]
    lines = [line for line in lines if line and not line.startswith(("#", "version"))]
    if not lines:
        return None
    made: dict[str, Member] = {}
    values: dict[str, str] = {}
    for at, line in enumerate(lines):
        _add(made, values, f"&{at}", line)
    last = made.get(f"&{len(lines) - 1}")
    if last is None:
        return None
    root = Member(method=last.method, links=last.links) if not last.is_file else Member(links=(Link(f"&{len(lines) - 1}"),))
    return Account(f"sd-mecha's {FIELD}", made | {ROOT: root})


def _add(made: dict[str, Member], values: dict[str, str], key: str, line: str) -> None:
    """Read one instruction: a file, a step, or a value that later ones name."""
    command, _, rest = line.partition(" ")
    words = [(name, text or bare) for name, text, bare in _WORD.findall(rest)]
    if command in _FILES and words:
        made[key] = Member(Mark.of(_unescaped(words[0][1])))
    elif command == "parameter" and words:
        made[key] = Member(Mark.of(), method=f"parameter {words[0][1][:60]}, left open", is_file=False)
    elif command in _STEPS and words:
        method, *given = words
        links = tuple(Link(value, name) for name, value in given if value in made)
        settings = [(name or f"{at}", values.get(value, value)) for at, (name, value) in enumerate(given) if value not in made]
        told = described((name, value) for name, value in settings if name not in _UNTOLD)
        made[key] = Member(method=f"{method[1][:60]}({told})", links=links, is_file=False)
    else:  # literal, dict
        values[key] = ", ".join(f"{name}={value}" if name else values.get(value, value) for name, value in words if name not in _UNTOLD)[
            :60
        ]


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
