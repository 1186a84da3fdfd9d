"""The part of a panel that says how drawing goes: a bar, what is done, how long it still takes, and a button that stops it."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

import ipywidgets as widgets

from workbench.panels.callbacks import on_click
from workbench.wording import duration

if TYPE_CHECKING:
    from workbench.render.drawing import Step

_QUICK = 0.8  # seconds in which no bar is shown: it would only flicker
_PACE = 0.25  # seconds between two updates
_SURE = 0.05  # the share that has to be done before it is said how long the rest takes


@final
class DrawingView:
    """Tells `stop()` and `again()` what a person pressed. What it says may come from any thread, one at a time."""

    def __init__(self, stop: Callable[[], None], again: Callable[[], None]) -> None:
        self._stop, self._again = stop, again
        self._bar = widgets.FloatProgress(min=0, max=1, layout=widgets.Layout(width="160px", flex="0 0 auto"))
        self._far = widgets.HTML().add_class("wb-status")
        self._button = widgets.Button(description="Stop", icon="stop", layout=widgets.Layout(width="100px", flex="0 0 auto"))
        on_click(self._button, self._pressed)
        self._going = widgets.HBox([self._bar, self._far, self._button]).add_class("wb-row")
        self._going.layout.display = "none"
        self._said = widgets.HTML().add_class("wb-status")
        self.widget = widgets.VBox([self._said, self._going]).add_class("wb-column")
        self._began = self._told = 0.0
        self._models = self._done = 0

    @property
    def value(self) -> str:
        """What is said, as HTML."""
        text: str = self._said.value
        return text

    def begin(self, models: int) -> None:
        """So many models are to be drawn."""
        self._began, self._told, self._models, self._done = time.monotonic(), 0.0, models, 0
        self._bar.value = 0

    def reading(self, name: str, part: str, done: int, tensors: int) -> bool:
        """Some tensors of a model are read; returns whether that was shown."""
        return self._tell(f"{name}: reading the {part}, {done:,} of {tensors:,} tensors", 0.0)

    def drawing(self, name: str, step: Step) -> bool:
        """Another step was taken; returns whether that was shown."""
        number = step.done + 1 if step.batch == 1 else f"{step.done + 1} to {step.done + step.batch}"
        which = f"picture {number} of {step.pictures}, " if step.pictures > 1 else ""
        return self._tell(f"{name}: {which}step {step.step} of {step.steps}", step.share)

    def drawn(self) -> None:
        """Another model is drawn."""
        self._done += 1

    def say(self, texts: Sequence[str]) -> None:
        """How it went, or what there is to say instead; nothing is drawn any more."""
        self._said.value = "<br>".join(map(html.escape, dict.fromkeys(texts)))
        self._going.layout.display = "none"

    def waits(self, text: str) -> None:
        """Something is to be drawn."""
        self._said.value = html.escape(text)

    def stopped(self) -> None:
        """Nothing is drawn any more, since somebody wanted that."""
        self._said.value = ""
        self._far.value = "Stopped. Any change draws again."
        self._button.description, self._button.icon = "Draw", "play"
        self._going.layout.display = ""

    def _tell(self, text: str, share: float) -> bool:
        now = time.monotonic()
        if now - self._began < _QUICK or now - self._told < _PACE:
            return False
        whole = (self._done + share) / max(1, self._models)
        left = (now - self._began) * (1 - whole) / whole if whole > _SURE else None
        self._told, self._bar.value, self._said.value = now, whole, ""
        self._far.value = html.escape(text if left is None else f"{text}; about {duration(left)} left")
        self._button.description, self._button.icon = "Stop", "stop"
        self._going.layout.display = ""
        return True

    def _pressed(self) -> None:
        (self._stop if self._button.description == "Stop" else self._again)()
