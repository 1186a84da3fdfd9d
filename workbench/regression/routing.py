"""SSR: LoRAs in one, whose directions are routed so that what each answers goes where it was asked. Whole models: `mean`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint, in_layout
from workbench.checkpoint.names.components import DENOISER
from workbench.checkpoint.views.layouts import like
from workbench.checkpoint.views.low_rank import LowRank
from workbench.families.correspondence import DIFFUSERS
from workbench.lora.checking import check_architectures, check_by_itself
from workbench.lora.formats import in_memory
from workbench.lora.laying import laid
from workbench.lora.one_change import directions
from workbench.operators.difference import add_delta
from workbench.regression.calibration import WHO, Calibration, bar, ridge_of
from workbench.render.listening import columns, layers_of
from workbench.wording import listed

if TYPE_CHECKING:
    import torch

    from workbench.render.listening import Layer

_RIDGE = 1e-4  # of the diagonal; see `regmean` for how the source has it


def routed(base: Checkpoint, loras: Sequence[LowRank], calibration: Calibration, progress: bool) -> LowRank:
    """One LoRA of several, with the directions of all; see `regmean`."""
    check_architectures(loras, WHO)
    for lora in loras:
        check_by_itself(lora, WHO)
    target = in_layout(base, DIFFUSERS)
    put = [laid(lora, like(lora, target)) for lora in loras]
    whole: dict[str, torch.Tensor] = {}
    changes: dict[str, _Change] = {}
    for place, lora in enumerate(put):
        for key in lora:
            shape = lora.info(key).shape
            if len(shape) < 2 or lora.kind(key) == "full":
                change = lora.read(key).float()
                whole[key] = whole[key] + change if key in whole else change
            elif (factors := _factors(lora, key)) is not None:
                changes.setdefault(key, _Change(shape)).factors[place] = factors
    calibration.renderer.load(base, fallback=base, progress=False)
    keys = {target.structure.spell(DENOISER, f"{name}.weight"): name for name in layers_of(calibration.renderer)}
    heard = {name: changes[key] for key, name in keys.items() if key in changes and len(changes[key].factors) > 1}
    for one in heard.values():
        one.begin()
    with bar(len(loras), progress) as shown:
        for place, lora in enumerate(loras):
            _listen(calibration, place, add_delta(base, [lora]), {name: one for name, one in heard.items() if place in one.factors})
            shown.update()
    for one in heard.values():
        one.route()
    pairs = {key: (*one.joined(), one.shape) for key, one in changes.items()}
    found = in_memory(pairs, whole, "+".join(lora.name for lora in loras), target)
    found.notes = (*found.notes, *_notes(changes, heard, whole))
    return found


def _factors(lora: LowRank, key: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Matrices whose product a change is, as they are in the file where it has some; None where it is zero."""
    if (factors := lora.factors(key)) is not None:
        return factors
    found = directions(lora, key)
    return None if found is None else (found.up, found.down)


def _listen(calibration: Calibration, place: int, model: Checkpoint, changes: Mapping[str, _Change]) -> None:
    """Sum up what the lower factors of all LoRAs make of what the layers of one are given."""
    lower = {name: one.lower.to(calibration.renderer.device) for name, one in changes.items()}

    def hear(name: str, layer: Layer, given: torch.Tensor) -> None:
        changes[name].add(place, lower[name], columns(layer, given))

    calibration.listen(place, model, list(changes), hear)


def _notes(changes: Mapping[str, _Change], heard: Mapping[str, _Change], whole: Mapping[str, torch.Tensor]) -> Iterator[str]:
    yield f"{WHO}: the directions of {len(heard)} layers were routed (SSR)"
    summed = [key for key, one in changes.items() if len(one.factors) > 1 and one.router is None]
    if summed or whole:
        told = "text encoders, whole changes, and layers that were given nothing"
        yield f"{len(summed) + len(whole)} changes are added up, as several LoRAs are: {told} ({listed([*summed, *whole])})"


@dataclass(eq=False)
class _Change:
    """What LoRAs make of one tensor: by LoRA, the upper factor, rows x rank, and the lower, rank x inputs."""

    shape: tuple[int, ...]
    factors: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    router: torch.Tensor | None = None  # None: what each LoRA answers is added up
    _met: torch.Tensor = field(init=False)  # sum of Z Z^T
    _own: torch.Tensor = field(init=False)  # sum of S Z Z^T
    _heard: bool = False

    @property
    def lower(self) -> torch.Tensor:
        """The lower factors of all on top of each other."""
        import torch

        return torch.cat([down for _, down in self.factors.values()])

    def begin(self) -> None:
        """From now on, what is given is summed up."""
        import torch

        rank = len(self.lower)
        self._met = torch.zeros(rank, rank, dtype=torch.float64)
        self._own = torch.zeros(rank, rank, dtype=torch.float64)

    def add(self, place: int, lower: torch.Tensor, given: torch.Tensor) -> None:
        """What a layer is given, [inputs, places], while the LoRA at that place draws."""
        signals = (lower @ given).double()
        met = (signals @ signals.T).to("cpu")
        first = sum(len(down) for other, (_, down) in self.factors.items() if other < place)
        own = slice(first, first + len(self.factors[place][1]))
        self._met += met
        self._own[own] += met[own]
        self._heard = True

    def route(self) -> None:
        """Solve for what becomes of the signals."""
        import torch

        if self._heard:
            ridge = torch.diag(ridge_of(self._met, _RIDGE))
            self.router = torch.cholesky_solve((self._own + ridge).T, torch.linalg.cholesky(self._met + ridge)).T

    def joined(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors of the merged change."""
        import torch

        upper = torch.cat([up for up, _ in self.factors.values()], 1)
        return upper if self.router is None else (upper.double() @ self.router).float(), self.lower
