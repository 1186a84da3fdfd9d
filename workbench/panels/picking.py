"""`Picking`: pictures of a panel that a person ticks, compares and stars. Drawing them is in `pictures_view`."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, final

import ipywidgets as widgets

from workbench.errors import InputError
from workbench.panels.callbacks import on_click
from workbench.panels.compare_panel import ComparePanel
from workbench.panels.fields import close_all
from workbench.panels.picture_actions import PictureActions
from workbench.panels.remembering import Remembering
from workbench.panels.ticks import Shown, Ticks

if TYPE_CHECKING:
    from PIL.Image import Image


@final
class Picking:
    """Ticks and stars of the pictures that `shown()` gives; `does` has what else the keyboard does: undo, redo, stop.

    A ticked picture is held as it was when it was ticked, so that it can be compared with what is drawn after a change.
    """

    def __init__(self, shown: Callable[[], Iterable[Shown]], remembering: Remembering, does: Mapping[str, Callable[[], None]]) -> None:
        self._shown, self._remembering = shown, remembering
        self._ticks = Ticks()
        own = {name: getattr(self, name) for name in ("untick", "clear", "compare", "side_by_side")}
        self.actions = PictureActions({**does, **own, "tick": self._toggle, "star": self._toggle_star})
        self.comparing = widgets.VBox().add_class("wb-comparing")

    @property
    def ticked(self) -> dict[int, str]:
        """What is ticked: labels by number."""
        return {number: one.label for number, one in self._ticks.held.items()}

    def tick(self, model: str = "result", number: int = 0) -> None:
        """Tick a picture that is shown, counted from 0. Raises InputError where there is none."""
        if self._ticks.number_of(self._find(model, number)) is None:
            self._toggle(model, number)

    def untick(self, number: int) -> None:
        """Untick the picture of this number in `ticked`. Raises InputError where there is none."""
        self._ticks.untick(number)
        self.refresh()

    def clear(self) -> None:
        """Untick all, and close what compares them."""
        self._ticks.held.clear()
        self._put(None)
        self.refresh()

    def compare(self) -> ComparePanel:
        """Show the two ticked pictures under a curtain. Raises InputError where they are not two, or of different shapes."""
        panel = ComparePanel(self._ticks.named(exactly=2))
        self._put(panel)
        return panel

    def side_by_side(self) -> None:
        """Show all ticked pictures large, in one row. Raises InputError where they are fewer than two."""
        figures = [
            f'<figure><img alt="{html.escape(label)}" src="{_exact(image)}"><figcaption>{html.escape(label)}</figcaption></figure>'
            for label, image in self._ticks.named().items()
        ]
        self._put(widgets.HTML(f'<div class="wb-abreast">{"".join(figures)}</div>'))

    def star(self, model: str = "result", number: int = 0, star: bool = True) -> None:
        """Give a picture that is shown a star in the gallery, which keeps it, or take it away. Raises InputError and SweepError."""
        shown = self._find(model, number)
        self._remembering.star(shown.name, shown.model, shown.request, self._of(shown.name), number, star)
        self.refresh()

    def refresh(self) -> None:
        """Show what is ticked and starred, after a change of either or of the pictures."""
        self.actions.list_held(self._ticks.held)
        shown = list(self._shown())
        stars = {one.name: self._stars(one) for one in {one.name: one for one in shown}.values()}
        ticked = [(one.name, one.number) for one in shown if self._ticks.number_of(one) is not None]
        self.actions.mark(ticked, [(one.name, one.number) for one in shown if one.number in stars[one.name]])

    def close(self) -> None:
        """Let go of all pictures."""
        self._ticks.held.clear()
        self._put(None)
        self.actions.list_held({})

    def _toggle(self, model: str, number: int) -> None:
        self._ticks.toggle(self._find(model, number))
        self.refresh()

    def _toggle_star(self, model: str, number: int) -> None:
        self.star(model, number, number not in self._stars(self._find(model, number)))

    def _stars(self, shown: Shown) -> set[int]:
        return self._remembering.stars(shown.name, shown.model, shown.request)

    def _of(self, name: str) -> list[Image]:
        return [one.image for one in self._shown() if one.name == name]

    def _find(self, model: str, number: int) -> Shown:
        found = list(self._shown())
        for one in found:
            if (one.name, one.number) == (model, number):
                return one
        there = ", ".join(dict.fromkeys(one.name for one in found)) or "none yet"
        raise InputError(f"there is no picture {number!r} of {model!r}; pictures count from 0, and there are some of: {there}")

    def _put(self, widget: widgets.Widget | None) -> None:
        """Show this where pictures are compared, in place of what is there."""
        before, self.comparing.children = self.comparing.children, ()
        for one in before:
            close_all(one)
        if widget is not None:
            close = widgets.Button(description="Close the comparison", icon="times", layout=widgets.Layout(width="180px"))
            on_click(close, lambda: self._put(None))
            self.comparing.children = (close, widget)


def _exact(image: Image) -> str:
    """A picture to the bit."""
    held = io.BytesIO()
    image.save(held, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
