"""Whole-tensor jobs share a limit of memory; a job larger than it runs alone."""

from __future__ import annotations

import threading

import pytest
import torch
from held import Held

import workbench as wb
from workbench.engine.parts import jobs
from workbench.engine.pool import Memory
from workbench.engine.quantising.quantiser import Plain
from workbench.tensors import PIECE, Calculation, Flat, TensorInfo


def run_together(memory: Memory, sizes: list[int]) -> int:
    """The most bytes that were held at once by threads of these sizes, each waiting a little inside."""
    held, most, lock = 0, 0, threading.Lock()

    def work(size: int) -> None:
        nonlocal held, most
        with memory.held(size):
            with lock:
                held += size
                most = max(most, held)
            threading.Event().wait(0.01)
            with lock:
                held -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)
    return most


def test_jobs_run_together_up_to_the_limit():
    assert 60 <= run_together(Memory(100), [60, 40, 60, 40, 30, 70]) <= 100


def test_a_job_beyond_the_limit_runs_alone():
    assert run_together(Memory(100), [500, 60, 40, 500]) == 500


def test_an_error_gives_the_memory_back():
    memory = Memory(100)
    with pytest.raises(ZeroDivisionError), memory.held(100):
        1 / 0  # noqa: B018
    assert run_together(memory, [100]) == 100


@pytest.mark.parametrize(("operator", "calculation", "held"), [("iso_c", "float32", 4), ("ties", "float64", 4), ("ties", "float32", 1)])
def test_a_job_holds_its_inputs_and_its_result_in_float32_whole_or_in_pieces(operator, calculation, held):
    shape = (4, PIECE)
    base = Held({"x": torch.zeros(shape, dtype=torch.float16)})
    merge = getattr(wb.operators, operator)(base, [base, base])
    (job,) = jobs(merge, [("x", Plain.of(TensorInfo(shape, "F16")))], Calculation(calculation))
    assert job.held == 4 * 4 * held * PIECE
    nested = getattr(wb.operators, operator)(base, [base, merge])
    (job,) = jobs(nested, [("x", Plain.of(TensorInfo(shape, "F16")))], Calculation(calculation))
    assert job.held == (2 + 4) * 4 * held * PIECE


@pytest.mark.parametrize(("rows", "more"), [(4, 4 * PIECE), (1, 0)])
def test_what_is_held_while_a_tensor_is_prepared_counts_too(rows, more):
    shape = (rows, PIECE)
    base = Held({"x": torch.zeros(shape, dtype=torch.float16)})
    merge = wb.operators.sce(base, [base, base], density=0.5)
    (job,) = jobs(merge, [("x", Plain.of(TensorInfo(shape, "F16")))], Calculation())
    assert job.held == 4 * (4 * PIECE + more)
    (job,) = jobs(wb.operators.ties(merge, [base, base]), [("x", Plain.of(TensorInfo(shape, "F16")))], Calculation())
    assert job.held == 4 * (4 * PIECE + more)


def test_a_large_tensor_is_read_in_pieces_and_is_the_same():
    values = torch.randn(2, PIECE, generator=torch.Generator().manual_seed(0)).half()
    base, tuned = Held({"x": values}, "base"), Held({"x": values + 1}, "tuned")
    merge = wb.operators.ties(base, [tuned], density=1.0)
    assert torch.equal(merge["x"], (values.float() + ((values + 1).float() - values.float())).half())
    assert [part for _, part in base.reads] == [Flat(0, PIECE), Flat(PIECE, 2 * PIECE)] * 3  # twice for the threshold
