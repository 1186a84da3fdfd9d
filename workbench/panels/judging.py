"""From a panel's state to its merge, or to the words that say why there is none. No widget is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from workbench.checkpoint import Checkpoint
from workbench.errors import WorkbenchError
from workbench.merge import Merge
from workbench.merge.schedules import Depth
from workbench.operators import find
from workbench.panels.parts_kept import slots
from workbench.panels.state import PanelState, each_value, per_model
from workbench.recipe import preflight


@final
@dataclass(frozen=True)
class Judged:
    """A merge, if the state makes one, and what is to be said of it: pairs of level (`error`, `warning`, `note`) and text."""

    merge: Merge | None
    words: tuple[tuple[str, str], ...]

    @property
    def ok(self) -> bool:
        """Whether it can be drawn and exported."""
        return self.merge is not None and not any(level == "error" for level, _ in self.words)


def judge(state: PanelState, checkpoints: Mapping[str, Checkpoint]) -> Judged:
    """The merge of a state, with what preflight says of it; nothing is read."""
    if empty := [slot for slot, names in state.inputs.items() if not names]:
        return Judged(None, (("error", f"{state.operator} needs {' and '.join(empty)}: choose among the models{_or_add(state)}"),))
    if gone := [path for name in (*state.used, *state.loras) for path in checkpoints[name].replaced()]:
        text = f"{', '.join(map(str, gone))} changed or vanished since it was opened: put it back, and press 'Read again'"
        return Judged(None, (("error", text),))
    try:
        merge = build(state, checkpoints)
        found = preflight(merge)
    except WorkbenchError as error:
        return Judged(None, (("error", str(error)),))
    return Judged(merge, tuple((finding.level, finding.text) for finding in found.findings))


def build(state: PanelState, checkpoints: Mapping[str, Checkpoint]) -> Merge:
    """The merge of a state: its method's, and the LoRAs on that. Raises InputError and OptionError; nothing is read."""
    inputs: dict[str, Any] = {}
    for slot in state.declaration.inputs:
        models = [checkpoints[name] for name in state.inputs[slot.name]]
        inputs[slot.name] = models if slot.many else models[0]
    dtype = None if state.loras else state.dtype  # rounded once, at the end
    made = find(state.operator)(**inputs, **state.options, rules=_rules(state, checkpoints), seed=state.seed, dtype=dtype)
    if not state.loras:
        return made
    loras = [checkpoints[name] for name in state.loras]
    return find("add_delta")(made, loras, strengths=state.strengths, seed=state.seed, dtype=state.dtype)


def alone(state: PanelState, lora: str, base: str, checkpoints: Mapping[str, Checkpoint]) -> Merge:
    """One LoRA of the stack on a model, as strong as it is there; nothing is read."""
    place = state.loras.index(lora)
    strength = each_value(state.strengths, lambda given: per_model(given, len(state.loras))[place])
    return find("add_delta")(checkpoints[base], [checkpoints[lora]], strengths=strength)


def _rules(state: PanelState, checkpoints: Mapping[str, Checkpoint]) -> list[dict[str, Any]] | None:
    """The rules, where names are those on the shelf; what a rule calls an input goes before a model that is called so."""
    if state.rules is None:
        return None
    named = {name: checkpoints[name] for name in state.used if name not in slots(state)}
    return [{**rule, "take": named.get(rule["take"], rule["take"])} if "take" in rule else dict(rule) for rule in state.rules]


def components_of(state: PanelState, checkpoints: Mapping[str, Checkpoint]) -> set[str]:
    """The components that the models have which are merged."""
    return {component for name in state.used for component in checkpoints[name].components}


def depth_of(state: PanelState, checkpoints: Mapping[str, Checkpoint]) -> Depth:
    """The blocks of the models that are merged, as far as they are of the first one's architecture."""
    models = [checkpoints[name] for name in state.used]
    alike = [model for model in models if model.architecture == models[0].architecture]
    return Depth.of(model.structure.location(key) for model in alike for key in model)


def _or_add(state: PanelState) -> str:
    return "" if state.models else ", after adding files"
