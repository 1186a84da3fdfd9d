"""`Fit`: what came of fitting a hypernetwork: the network, how it got there, and the merges it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint import Checkpoint
from workbench.conditioning.hypernetworks import Hypernetwork
from workbench.conditioning.prompts import Prompt, from_prompt
from workbench.conditioning.text_encoders import TextEncoder
from workbench.figures.results import Result
from workbench.merge import Merge
from workbench.operators.spectral import fft_blend

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from PIL.Image import Image


@final
@dataclass(frozen=True, repr=False)
class Fit(Result):
    """A fitted hypernetwork. `teachers` says who taught each prompt, `pictures` has a picture by the step it was drawn at."""

    hypernetwork: Hypernetwork
    encoder: TextEncoder
    first: Checkpoint
    second: Checkpoint
    options: Mapping[str, Any]
    teachers: Mapping[str, str]
    history: Sequence[Mapping[str, float]]
    pictures: Sequence[tuple[int, Image]]
    shown: Prompt
    together: bool
    stopped: str = ""

    def merge(self, prompt: Prompt | None = None) -> Merge:
        """The merge that a prompt asks for; without one, what was fitted to all prompts together, or the one that is shown.

        Save the hypernetwork first (`.hypernetwork.save(path)`) for a recipe that names it; otherwise the recipe has the numbers.
        """
        asked = from_prompt(self.shown if prompt is None else prompt, encoder=self.encoder, hypernetwork=self.hypernetwork)
        return fft_blend(self.first, self.second, **{**self.options, "coefficients": asked})

    def frame(self) -> pd.DataFrame:
        """`step`, `loss` (mean over the steps since the last row), `held_out` (mean over held-out prompts; NaN without).

        Both are mean squared differences between the answers of merge and teacher, in units of the noise's variance.
        """
        import pandas as pd

        return pd.DataFrame(list(self.history), columns=["step", "loss", "held_out"])

    def plot(self) -> go.Figure:
        """The losses by step, with the pictures above them."""
        from workbench.figures import losses

        return losses(self.frame(), self.pictures, title=self.headline)

    @property
    def headline(self) -> str:
        if not self.history:
            return f"nothing was fitted: {self.stopped or 'no steps were taken'}"
        begin, end = self.history[0], self.history[-1]
        column = "held_out" if end["held_out"] == end["held_out"] else "loss"
        told = f"{end['step']} steps: {'held-out ' if column == 'held_out' else ''}loss from {begin[column]:.4f} to {end[column]:.4f}"
        return f"{told} ({self.stopped})" if self.stopped else told
