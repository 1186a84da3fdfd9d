"""FrontPanel in a notebook: the pictures are those of the merge that the pointer is at."""

from __future__ import annotations

from notebook_page import until

SEARCH = [
    """import numpy as np
import workbench as wb
from workbench.places import DATA
base, heart, moon = (wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in ("base", "heart", "moon"))
def bright(images, prompts): return [float(np.asarray(image).mean()) for image in images]
def colour(images, prompts): return [float(np.ptp(np.asarray(image, float), axis=2).mean()) for image in images]
asked = {"prompts": ["a red heart on a white background", "a yellow moon on a black background"], "seeds": [0]}
asked |= {"steps": 1, "trials": 4, "renderer": wb.Renderer(DATA / "shapes-sd" / "config"), "progress": False}
found = wb.search(wb.operators.task_arithmetic, {"weights": {"each": "model", "low": 0.0, "high": 2.0}}, objective=[bright, colour],
                  inputs={"base": base, "models": [heart, moon]}, **asked)""",
    """panel = wb.FrontPanel(found)
panel""",
]


def test_the_pointer_brings_up_the_pictures_of_a_merge(lab):
    notebook = lab(SEARCH).run_all()
    plot = notebook.find(".js-plotly-plot")
    picture = notebook.find("img.widget-image")
    assert notebook.python("(panel.shown.kind, panel.shown.number)") == ("search", notebook.python("found.best.number"))
    before = picture.get_attribute("src")
    points = plot.locator(".scatterlayer .points path")
    other = notebook.python("[one.number for one in found.shown if one.kind == 'coarse grid'][0]")
    place = notebook.python("[one.kind for one in found.shown].index('coarse grid')")
    points.nth(place).hover(force=True)
    until(lambda: notebook.python("(panel.shown.kind, panel.shown.number)") == ("coarse grid", other), "the pointer was not noticed")
    until(lambda: picture.get_attribute("src") != before, "the pictures are still the others'")
    notebook.screenshots("search-front", plot.locator("xpath=ancestor::*[contains(@class, 'jp-OutputArea-output')]").first)
    notebook.python("panel.close()")  # plotly goes on telling the kernel of the pointer, which the page must not do once that has gone
    until(lambda: notebook.page.locator(".js-plotly-plot").count() == 0, "the plot is still there")
