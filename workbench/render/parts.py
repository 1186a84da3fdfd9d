"""The weights that a pipeline's parts hold, and whose they are: put there tensor by tensor, and only what changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from workbench.checkpoint.base import Checkpoint, hashed
from workbench.errors import Cancelled, RenderError
from workbench.render.assembly import BUILDING, another, embed_guidance
from workbench.render.fitting import PartPlan, embeds_guidance, has_guidance
from workbench.render.keymap import as_in_module
from workbench.render.residents import Residents
from workbench.render.silence import quiet
from workbench.tensors import Calculation, rounded
from workbench.wording import printable

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Cancel = Callable[[], bool]  # whether the work is not wanted any more
OnTensor = Callable[[str, int, int], None]  # the part that is read, how many of its tensors are, and how many there are to read


_AT_ONCE = 1 << 28  # bytes that are read before the module lets go of those they replace


class Parts:
    """Fills the parts of a pipeline, on one device and in one dtype; merges are calculated on `at`, where `kept` keeps their inputs."""

    def __init__(self, pipeline: DiffusionPipeline, device: torch.device, dtype: torch.dtype, at: torch.device, kept: Residents) -> None:
        self._pipeline, self._device, self._dtype = pipeline, device, dtype
        self._at, self._kept = at, kept
        self._prints: dict[str, Mapping[str, str]] = {}  # part -> tensor -> what was read for it
        self._beside: dict[str, Any] = {}  # modules that the pipeline has no place for
        self.owners: dict[str, str] = {}

    def module(self, part: str) -> Any:
        """A part of the pipeline, or what stands beside it."""
        return self._beside[part] if part in self._beside else self._pipeline.components[part]

    def stand_beside(self, part: str, like: str | None) -> None:
        """Have a module beside the pipeline's, empty at first, of the kind of one of its parts; None takes it away with all it holds."""
        if like is None:
            for held in (self._beside, self._prints, self.owners):
                held.pop(part, None)
        elif part not in self._beside:
            self._beside[part] = another(self._pipeline.components[like])

    def contents(self, part: str) -> str:
        """What tells apart the weights that a part has held."""
        return hashed(*sorted(self._prints.get(part, {}).items()))

    def put(
        self, part: str, checkpoint: Checkpoint, plan: PartPlan, progress: bool, cancelled: Cancel | None, on_tensor: OnTensor | None = None
    ) -> None:
        """Read what changed of one part and hand it to its module: copies, so that nobody else's tensor is aliased."""
        view = as_in_module(checkpoint, plan.entries)
        prints = {name: view.fingerprint(name) for name in view}
        held = self._prints.get(part, {})
        changed = [name for name, known in prints.items() if plan.renamed or held.get(name) != known]
        if held == prints:
            self.owners[part] = checkpoint.name
            return
        self.owners.pop(part, None)
        module = self.module(part)
        if not plan.renamed:
            self._made_ready(part, module, checkpoint, prints)
        checkpoint.prepare(progress=progress, cancelled=cancelled)
        state: dict[str, torch.Tensor] = {}
        modules, waiting, new = dict(module.named_modules()), 0, False
        with bar_of(progress, total=len(changed), desc=f"{checkpoint.name}: {part}", unit="tensor") as bar:
            for done, name in enumerate(changed):
                go_on(cancelled)
                if on_tensor is not None:
                    on_tensor(part, done, len(changed))
                state[name] = self._read(view, name)
                waiting += state[name].nbytes
                if waiting >= _AT_ONCE and not plan.renamed:
                    new |= self._assign(part, module, modules, state, prints)
                    state, waiting = {}, 0
                bar.update()
        if plan.renamed:
            with BUILDING:
                self._pipeline.register_modules(**{part: _loaded(checkpoint, part, module, state, self._dtype).to(self._device)})
        else:
            new |= self._assign(part, module, modules, state, prints)
            self._finish(module, checkpoint, new)
        self._prints[part] = prints
        self.owners[part] = checkpoint.name

    def sizes(self) -> dict[str, int]:
        """Bytes of each part of the pipeline in this dtype, filled or not."""
        modules = {name: one for name, one in self._pipeline.components.items() if isinstance(one, torch.nn.Module)}
        return {name: sum(one.numel() for one in module.parameters()) * self._dtype.itemsize for name, module in modules.items()}

    def bytes_on(self, device: torch.device) -> int:
        """Bytes that the parts hold on a device."""
        parts = (*self._pipeline.components.values(), *self._beside.values())
        modules = [one for one in parts if isinstance(one, torch.nn.Module)]
        return sum(one.nbytes for module in modules for one in module.parameters() if one.device.type == device.type)

    def _made_ready(self, part: str, module: Any, checkpoint: Checkpoint, prints: Mapping[str, str]) -> None:
        """Have the module the tensors that it is given, and no print of another."""
        if embeds_guidance(module) is not None:
            with BUILDING:
                embed_guidance(module, has_guidance(checkpoint))
        self._prints[part] = {name: known for name, known in self._prints.get(part, {}).items() if name in prints}

    def _assign(
        self, part: str, module: Any, modules: Mapping[str, Any], state: Mapping[str, torch.Tensor], prints: Mapping[str, str]
    ) -> bool:
        """Some of the tensors of a part, whose modules have these names, take the place of those that it has; whether one had none."""
        first = {}
        for name, tensor in state.items():
            place, _, leaf = name.rpartition(".")
            held = modules[place]._parameters.get(leaf) if place in modules else None
            if held is None or held.device != tensor.device:  # a buffer, or what has no weights yet
                first[name] = tensor
            else:
                modules[place]._parameters[leaf] = torch.nn.Parameter(tensor, requires_grad=False)
        if first:
            with BUILDING:
                module.load_state_dict(first, assign=True, strict=False)  # the plan has every tensor of the module
        self._prints[part] = {**self._prints[part], **{name: prints[name] for name in state}}
        return bool(first)

    def _finish(self, module: Any, checkpoint: Checkpoint, new: bool) -> None:
        """Have weights that are one tensor under two names be one again, and all that is new where the others are."""
        if getattr(module, "_tied_weights_keys", None):
            with BUILDING:
                module.tie_weights()
        if not new:
            return
        if empty := [name for name, one in module.named_parameters() if one.is_meta]:
            raise RenderError(f"{checkpoint.name!r} gives nothing for {empty[0]} of the {type(module).__name__}: load a whole checkpoint")
        module.requires_grad_(False)
        if any(one.device != self._device for one in module.buffers()):  # the parameters are there already
            with BUILDING:
                module.to(self._device)

    def _read(self, view: Checkpoint, name: str) -> torch.Tensor:
        """One tensor as an exported file would have it; merges are calculated on the device, where their inputs stay if there is room."""
        if (self._at.type != "cpu" or self._kept.room) and view.origin(name) is None:
            try:
                exact = view.calculate(name, None, Calculation(view.precision, str(self._at), kept=self._kept))
                return rounded(exact, view.info(name).dtype, str(self._at)).detach().to(self._device, self._dtype)
            except torch.OutOfMemoryError:  # on the CPU, then, and nothing is kept until the next load
                self._kept.clear()
        return view.read(name).detach().to(self._device, self._dtype, copy=True)


def _loaded(checkpoint: Checkpoint, part: str, module: Any, state: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """A model of transformers, loaded by transformers, which knows the names that files have. Raises RenderError for what does not fit."""
    with quiet():
        made, said = type(module).from_pretrained(
            None, config=copy.deepcopy(module.config), state_dict=state, dtype=dtype, output_loading_info=True
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if wrong := sorted(map(str, said[kind])):
            told = kind.removesuffix("_keys")
            raise RenderError(
                f"{checkpoint.name!r}: of its {part}, {len(wrong)} tensors are {told} for a {type(module).__name__}, first {wrong[0]}"
            )
    return made.requires_grad_(False).eval()


def go_on(cancelled: Cancel | None) -> None:
    """Raises Cancelled once the work is not wanted any more."""
    if cancelled is not None and cancelled():
        raise Cancelled("the work was given up")


def bar_of(shown: bool, **options: Any) -> tqdm[Any]:
    """A progress bar for what takes longer than two seconds."""
    return tqdm(**options | {"desc": printable(options.get("desc", ""))}, delay=2, leave=False, disable=not shown)
