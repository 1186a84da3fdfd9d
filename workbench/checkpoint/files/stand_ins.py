"""Empty stand-ins, by name, for the harmless classes that trainers pickle beside a state dict. What they stand for is never imported."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

_LIGHTNING = ("pytorch_lightning", "lightning.pytorch")  # before 2.0 and since
_CALLBACKS = {
    "early_stopping": ("EarlyStopping",),
    "gpu_stats_monitor": ("GPUStatsMonitor",),
    "gradient_accumulation_scheduler": ("GradientAccumulationScheduler",),
    "lr_monitor": ("LearningRateMonitor",),
    "model_checkpoint": ("ModelCheckpoint",),
    "model_summary": ("ModelSummary",),
    "progress.tqdm_progress": ("TQDMProgressBar",),
    "stochastic_weight_avg": ("StochasticWeightAveraging",),
    "timer": ("Timer",),
}
_OTHERS = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype", "numpy.ndarray", *(f"numpy.dtypes.{kind}DType" for kind in ("Float32", "Float64", "Int32", "Int64", "Bool")),
    "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode", *(f"builtins.{kind}" for kind in ("dict", "list", "int", "float", "str", "bool")),
    "argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath",
    "pathlib.Path", "typing.Any",
)  # fmt: skip
# a subclass of dict is filled entry by entry, which torch does for plain dicts alone
_MAPPINGS = (
    *(f"{package}.utilities.parsing.AttributeDict" for package in ("pytorch_lightning", "lightning.pytorch")),
    "lightning_fabric.utilities.data.AttributeDict", "lightning.fabric.utilities.data.AttributeDict",
)  # fmt: skip
_one_at_a_time = threading.Lock()  # torch keeps what it allows in one place for all threads


@final
class StandIn:
    """Takes whatever it is made from or filled with, and keeps nothing."""

    def __new__(cls, *args: Any, **named: Any) -> StandIn:
        return super().__new__(cls)

    def __init__(self, *args: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


@contextmanager
def stand_ins() -> Iterator[None]:
    """While it lasts, torch's unpickler of weights knows these names; every other one is refused as ever."""
    import torch

    with _one_at_a_time, torch.serialization.safe_globals(_known()):
        yield


def _known() -> list[Any]:
    """Pairs of what is made and the name that a pickle has for it."""
    callbacks = [f"{package}.callbacks.{module}.{name}" for package in _LIGHTNING for module, names in _CALLBACKS.items() for name in names]
    return [*((StandIn, name) for name in (*callbacks, *_OTHERS)), *((dict, name) for name in _MAPPINGS)]
