"""Every notebook runs, quickly, with the models that come with the project; and keeps the style that notebooks here have."""

from __future__ import annotations

import ast
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from servers import KERNEL, warm_kernels

if TYPE_CHECKING:  # its import takes seconds, which the processes that run other tests save
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))

notebooks = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    import nbformat

    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert PATHS


@notebooks
def test_a_notebook_is_short_and_its_cells_are_too(path):
    assert 15 <= len(read(path).cells) <= 35
    for source in code(path):
        assert len(source.splitlines()) <= 12, source
        assert max(map(len, source.splitlines())) <= 140, source


@notebooks
def test_a_notebook_defines_nothing_longer_than_a_line(path):
    for source in code(path):
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.ClassDef | ast.AsyncFunctionDef), source
            assert not isinstance(node, ast.FunctionDef) or node.lineno == node.end_lineno, source


@notebooks
def test_a_notebook_begins_with_its_question_then_with_paths_seed_and_quick(path):
    title, *_ = read(path).cells[0].source.splitlines()
    assert title.startswith("# ")
    assert title.endswith("?")
    first = code(path)[0]
    names = {node.id for node in ast.walk(ast.parse(first)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert {"seed", "quick"} <= names
    assert "Path(" in first
    assert "WORKBENCH_QUICK" in first


@notebooks
def test_a_notebook_stores_no_outputs(path):
    from nbformat import validate

    notebook = read(path)
    validate(notebook)
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> Iterator[str]:
    """What notebooks run in: what they import is there already."""
    settings = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as environment, warm_kernels(settings):
        environment.setenv("JUPYTER_DATA_DIR", str(settings / "data"))
        yield KERNEL


@pytest.mark.skipif(KERNEL != "warm", reason="kernels are Jupyter's own here")
def test_a_warm_kernel_whose_port_is_taken_ends(kernel, tmp_path):
    from jupyter_client.connect import write_connection_file
    from jupyter_client.kernelspec import KernelSpecManager

    with socket.create_server(("127.0.0.1", 0)) as taken:
        file, _ = write_connection_file(str(tmp_path / "kernel.json"), iopub_port=taken.getsockname()[1])
        argv = [word.format(connection_file=file) for word in KernelSpecManager().get_kernel_spec(kernel).argv]
        assert subprocess.run(argv, timeout=200).returncode == 0


@notebooks
def test_a_notebook_runs(path, kernel, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    for folder in ("data", "docs", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.setenv("WORKBENCH_QUICK", "1")
    notebook = read(path)
    resources = {"metadata": {"path": str(tmp_path / "notebooks")}}
    try:
        NotebookClient(
            notebook, kernel_name=kernel, store_widget_state=False, timeout=300, startup_timeout=300, resources=resources
        ).execute()
    except RuntimeError as error:  # ports that were free when they were chosen may be another process's a moment later
        if "Kernel died before replying to kernel_info" not in str(error):
            raise
        NotebookClient(
            notebook, kernel_name=kernel, store_widget_state=False, timeout=300, startup_timeout=300, resources=resources
        ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stderr")
    assert "Warning" not in said
    assert any("image/png" in output.get("data", {}) for output in outputs)
