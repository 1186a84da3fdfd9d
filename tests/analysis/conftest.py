"""What the tests of `analysis` share: the embedded family, and the demo's merges of it."""

from __future__ import annotations

import pytest

import workbench as wb
from workbench.demo import merges, trained


@pytest.fixture(scope="package")
def family() -> dict[str, wb.Checkpoint]:
    return trained()


@pytest.fixture(scope="package")
def made(family, tmp_path_factory) -> dict[str, wb.Checkpoint]:
    """The demo's three merges, written as float16 and opened again."""
    folder = tmp_path_factory.mktemp("made")
    return {name: wb.export(merge, folder / f"{name}.safetensors", progress=False).open() for name, merge in merges(family).items()}
