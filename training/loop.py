"""The one training loop of the family: AdamW, averaged weights, resuming; rates are in `settings`, losses elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from training.settings import Stage

if TYPE_CHECKING:
    import torch

_SAVE_EVERY = 500


def fit(
    parameters: list[torch.nn.Parameter],
    loss: Callable[[torch.Generator], torch.Tensor],
    stage: Stage,
    *,
    name: str,
    state_folder: Path,
    average: bool = False,
    weight_decay: float = 0.01,
) -> None:
    """Minimise `loss` over the parameters, in place; with `average`, leave their exponential moving average there.

    `loss` draws all its randomness from the generator it is given, which depends on the seed and the step alone,
    so that a run resumed from its state file takes the same steps.
    """
    import torch
    from diffusers.training_utils import EMAModel

    optimizer = torch.optim.AdamW(parameters, lr=stage.learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: stage.rate_at(step))
    ema = EMAModel(parameters, decay=0.998, use_ema_warmup=True, power=0.8) if average else None
    state_file = state_folder / f"{name}.pt"
    start = _resume(state_file, parameters, optimizer, schedule, ema)
    bar = tqdm(range(start, stage.steps), desc=name, initial=start, total=stage.steps, mininterval=2)
    smooth = None
    for step in bar:
        value = loss(torch.Generator().manual_seed(stage.seed * 1_000_003 + step))
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if ema:
            ema.step(parameters)
        smooth = value.item() if smooth is None else 0.98 * smooth + 0.02 * value.item()
        bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
        if (step + 1) % _SAVE_EVERY == 0:
            _save(state_file, step + 1, parameters, optimizer, schedule, ema)
    if ema:
        ema.copy_to(parameters)
    state_file.unlink(missing_ok=True)


def _save(path: Path, step: int, parameters: list, optimizer: torch.optim.Optimizer, schedule: object, ema: object) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "parameters": [parameter.data for parameter in parameters],
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "ema": ema.state_dict() if ema else None,
    }
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def _resume(path: Path, parameters: list, optimizer: torch.optim.Optimizer, schedule: object, ema: object) -> int:
    """The step to start from: 0, or where the state file left off."""
    import torch

    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for parameter, saved in zip(parameters, state["parameters"], strict=True):
        parameter.data.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    if ema:
        ema.load_state_dict(state["ema"])
    return state["step"]
