"""PEFT's settings of a LoRA, from its header or from the config beside it: how each pair is scaled. Nothing is read here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.errors import CheckpointError
from workbench.untrusted import MOST_LEVELS, Refused, parse_json
from workbench.wording import listed

HEADER = "lora_adapter_metadata"
_NUMBERS = {"r", "lora_alpha", "alpha"}
_KINDS = {"LORA": "up", "LOHA": "w1_a", "LOKR": "k1", "IA3": "ia3_l", "OFT": "oft_R", "BOFT": "boft_R"}  # and a part of each
# initial values that change the model too, so that the file alone is not what was learned
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "eva_loftq")
_HEAVY = re.compile(r"\)\s*[*+{]|(?:[*+}].*){4}")  # patterns that could take for ever: repeated groups, many repetitions


@dataclass(frozen=True, eq=False)
class PeftSettings:
    """The settings of one component. `source` is where they stand, for messages; `values` are as PEFT names them.

    Raises CheckpointError for a rank or an alpha that is no finite number.
    """

    source: str
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in _NUMBERS & self.values.keys():
            if self.values[name] is not None:
                self._number(name, self.values[name])

    def scale(self, module: str, rank: int, names: Iterable[str]) -> float:
        """alpha / rank of a pair, or alpha / sqrt(rank) with `use_rslora`, of PEFT's module; `rank` is the pair's own, 0 where it has none.

        Raises CheckpointError where the settings say another rank, or no number.
        """
        usual = self._number("r", self.values.get("r", rank))
        told = self._number("r", self._by_module("rank_pattern", module, usual))
        if rank and told != rank:
            raise CheckpointError(
                f"{self.source} says rank {told:g} for {module!r}, and the file has {rank} ({listed([*names], 1)}); one is of another LoRA"
            )
        alpha = self.values.get("lora_alpha", self.values.get("alpha"))
        if alpha is None:
            return 1.0
        alpha = self._number("lora_alpha", self._by_module("alpha_pattern", module, alpha))
        rank = rank or int(told)
        if rank <= 0:
            return 1.0
        return alpha / math.sqrt(rank) if self.values.get("use_rslora") else alpha / rank

    def feedforward(self, module: str) -> bool | None:
        """Whether an IA3 of PEFT scales a module's inputs; None where nothing says so."""
        listed_modules = self.values.get("feedforward_modules")
        return None if listed_modules is None else self._targets(listed_modules, module)

    @property
    def saved(self) -> tuple[str, ...]:
        """Modules whose tensors are stored as they are to be."""
        found = self.values.get("modules_to_save")
        return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()

    def check(self, roles: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
        """What there is to say of settings whose file has these parts of each module. Raises CheckpointError where they contradict it."""
        parts = {role for found in roles.values() for role in found}
        kind = str(self.values.get("peft_type") or "LORA").upper().rpartition(".")[2]
        if kind not in _KINDS:
            raise CheckpointError(f"{self.source} is of a {kind}, which is not read; it knows {', '.join(_KINDS)}")
        if self.values.get("peft_type") and not any(role.startswith(_KINDS[kind]) for role in parts):
            raise CheckpointError(f"{self.source} is of a {kind}, and the file has no part of one; it is of another file")
        if kind == "LORA" and bool(self.values.get("use_dora")) != ("magnitude" in parts) and "use_dora" in self.values:
            has = (
                "says use_dora, and the file has no lora_magnitude_vector"
                if self.values["use_dora"]
                else "says nothing of use_dora, and the file is a DoRA"
            )
            raise CheckpointError(f"{self.source} {has}; one is of another LoRA")
        self._refuse()
        return self._check_targets(roles)

    def _refuse(self) -> None:
        """Raise CheckpointError for settings under which the factors mean something else."""
        first = self.values.get("init_lora_weights")
        if isinstance(first, str) and first.lower().startswith(_MOVES_BASE):
            told = f"says init_lora_weights={first!r}, which changes the model as well"
            raise CheckpointError(f"{self.source} {told}; save it with path_initial_model_for_weight_conversion, as PEFT's guide says")
        for name in ("fan_in_fan_out", "layer_replication", "target_parameters"):
            if self.values.get(name):
                raise CheckpointError(f"{self.source} says {name}, which is not read; merge it with PEFT, and extract the difference")

    def _check_targets(self, roles: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
        targets = self.values.get("target_modules")
        if not targets or targets == "all-linear" or not isinstance(targets, str | list) or not roles:
            return ()
        strange = [module for module in roles if not self._targets(targets, module)]
        if len(strange) == len(roles):
            told = f"is for {listed(targets if isinstance(targets, list) else [targets])}, and the file has {listed(strange)}"
            raise CheckpointError(f"{self.source} {told}; one is of another LoRA")
        absent = [one for one in targets if not any(self._targets([one], module) for module in roles)] if isinstance(targets, list) else []
        notes = (f"{self.source} names {listed(absent)}, of which the file has nothing",) if absent else ()
        return notes + ((f"{self.source} does not name {listed(strange)}, which the file has",) if strange else ())

    def _targets(self, targets: Any, module: str) -> bool:
        """PEFT's rule: a pattern of the whole name, or names that it ends with."""
        if isinstance(targets, str):
            return self._pattern(targets).fullmatch(module) is not None
        return isinstance(targets, list) and any(module == one or module.endswith(f".{one}") for one in targets)

    def _by_module(self, name: str, module: str, usual: Any) -> Any:
        """PEFT's rule: the first pattern that the name ends with, from a dot on, says it."""
        patterns = self.values.get(name) or {}
        if not isinstance(patterns, dict):
            raise CheckpointError(f"{self.source}: {name} is a {type(patterns).__name__}, not an object; fetch it again")
        return next((value for key, value in patterns.items() if self._pattern(rf"(?:.*\.)?(?:{key})", key).fullmatch(module)), usual)

    def _pattern(self, pattern: str, shown: str | None = None) -> re.Pattern[str]:
        shown = pattern if shown is None else shown
        if len(shown) > 1000 or _HEAVY.search(shown):
            raise CheckpointError(
                f"{self.source}: the pattern {shown[:80]!r} repeats too much to be tried; write the modules' names instead"
            )
        try:
            return re.compile(pattern)
        except re.error as error:
            raise CheckpointError(f"{self.source}: {shown[:80]!r} is no pattern ({error}); mend it, or fetch it again") from None

    def _number(self, name: str, value: Any) -> float:
        return finite(self.source, name, value)


def in_header(metadata: Mapping[str, str], where: object) -> dict[str, PeftSettings]:
    """The settings that diffusers wrote into a header, by component; "" has PEFT's plain ones. Raises CheckpointError where damaged."""
    try:
        found = parse_json(metadata.get(HEADER, "{}"), levels=MOST_LEVELS)
    except Refused as error:
        raise CheckpointError(f"{where}: its header's {HEADER} is not JSON that can be read: {error}; fetch the file again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{where}: its header's {HEADER} is a {type(found).__name__}, not an object; fetch the file again")
    by_component: dict[str, dict[str, Any]] = {}
    for key, value in found.items():
        component, _, name = key.rpartition(".")
        if isinstance(value, dict) and not {"r", "lora_alpha"}.isdisjoint(value):  # nested: {"unet": {"r": ...}}
            by_component.setdefault(key, {}).update(value)
        else:
            by_component.setdefault(component, {})[name] = value
    return {component: PeftSettings(f"{where}: its header's {HEADER}", values) for component, values in by_component.items()}


def finite(where: object, key: str, value: Any) -> float:
    """The number that something is. Raises CheckpointError for what is none, or not finite."""
    try:
        if not isinstance(value, bool | str) and math.isfinite(number := float(value)):
            return number
    except (OverflowError, TypeError, ValueError):  # larger than any float, or complex
        pass
    raise CheckpointError(f"{where}: {key!r} is {str(value)[:20]}; an alpha is a finite number; the file is damaged, fetch it again")
