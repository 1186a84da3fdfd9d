"""A saved notebook shows the last pictures of a panel without its kernel."""

from __future__ import annotations

import base64
import io

from PIL import Image

from workbench.panels.still import sheet
from workbench.render.request import Request

RED = Image.new("RGB", (64, 64), (200, 0, 0))
CELLS = [
    "import workbench as wb\npanel = wb.MergePanel(gallery=None)\npanel",
    "panel.show(panel.state.with_wanted(steps=2))",
    "panel.wait()",
]


def test_a_sheet_has_all_pictures_with_their_names_and_stays_small():
    request = Request(("a", "b"), (0, 1))
    drawn = Image.open(io.BytesIO(sheet(request, {"heart": [RED] * 4, "gone": [], "result": [RED] * 4})))
    reds = sum(count for count, colour in drawn.convert("RGB").getcolors(1 << 20) if colour == (200, 0, 0))
    assert reds == 8 * 128 * 128 or reds == 8 * 256 * 256
    many = Image.open(io.BytesIO(sheet(Request(("a",), tuple(range(400))), {"result": [RED] * 400})))
    assert many.width * many.height < 8e6
    assert sheet(request, {"heart": []}) is None


def test_a_notebook_that_was_run_holds_the_pictures_as_a_png(tmp_path):
    import nbformat  # seconds, which the processes that run other tests save
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, kernel_name="python3", store_widget_state=False, timeout=300, resources=resources).execute()
    widget, still = notebook.cells[0].outputs
    assert "application/vnd.jupyter.widget-view+json" in widget.data
    picture = Image.open(io.BytesIO(base64.b64decode(still.data["image/png"])))
    assert picture.width > 4 * 128
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert still.data["image/png"].replace("\n", "")[:200] in page.replace("\n", "")
