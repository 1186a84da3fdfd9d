"""Whether a file holds what a merge makes: every number is made again and compared. Headers are compared elsewhere."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.engine.containers import names_in_gguf
from workbench.engine.parts import TensorPart, jobs
from workbench.engine.pool import Done
from workbench.engine.quantising.asking import Quantise
from workbench.engine.quantising.choosing import plain_plan, quantised_plan
from workbench.engine.quantising.formats import GGUF
from workbench.engine.quantising.quantiser import Plain, Quantiser
from workbench.engine.streaming import Findings, pieces, run_all
from workbench.tensors import Calculation, Flat, TensorInfo

if TYPE_CHECKING:
    import torch


def differences(written: Checkpoint, made: Checkpoint, asked: Quantise | None, progress: bool) -> dict[str, str]:
    """The tensors that are not in the file as `made` would be written, quantised as `asked`: by name what is the matter, in its order."""
    assert written.path is not None
    infos = {key: made.info(key) for key in made}
    plain = plain_plan(written.path, infos, made.rounding)
    quantisers = plain if asked is None else quantised_plan(written.path, made, infos, asked, made.rounding).quantisers
    names = names_in_gguf(made) if written.path.suffix == GGUF else {key: key for key in made}
    wanted = {names[key]: one for key, one in quantisers.items()}
    found = {name: "is in the file, and not in what its recipe makes" for name in written if name not in wanted}
    found |= {name: "is not in the file" for name in wanted if name not in written}
    found |= {name: told for name in written if name in wanted and (told := _other(written.info(name), wanted[name]))}
    first: dict[str, int] = {}
    lock, calculation = threading.Lock(), Calculation(made.precision)
    work = list(jobs(made, [(key, one) for key, one in quantisers.items() if names[key] not in found and one.info.numel], calculation))

    def compare(job: TensorPart, done: Done) -> None:
        name = names[job.key]
        for piece in pieces(made, job, calculation, Findings(False)):
            values = job.quantiser.encode(piece.values, piece.first).values
            there = written.exact(name, Flat(piece.first, piece.first + len(values)))
            if (at := _first_difference(there, values)) is not None:
                with lock:
                    first[name] = min(first.get(name, piece.first + at), piece.first + at)
            done(len(values) * job.quantiser.info.itemsize)

    run_all(made, work, compare, device=calculation.device, threads=None, progress=progress, title=made.name)
    found |= {name: f"other values, the first at element {at}" for name, at in first.items()}
    return {name: found[name] for name in [*written, *wanted] if name in found}


def _first_difference(there: torch.Tensor, made: torch.Tensor) -> int | None:
    """The first element in which two flat tensors differ, byte by byte, in the wider of their dtypes."""
    import torch

    dtype = torch.promote_types(there.dtype, made.dtype)
    size = dtype.itemsize
    unlike = (there.to(dtype).contiguous().view(torch.uint8) != made.to(dtype).contiguous().view(torch.uint8)).nonzero()
    return int(unlike[0]) // size if len(unlike) else None


def _other(there: TensorInfo, quantiser: Quantiser) -> str:
    """How a tensor's shape or dtype is not what is made; what is quantised shows as the dtype it stands for."""
    made = quantiser.info
    if there.shape == made.shape and (there == made or not isinstance(quantiser, Plain)):
        return ""
    return f"is {there.dtype_name} {list(there.shape)}, and its recipe makes {made.dtype_name} {list(made.shape)}"
