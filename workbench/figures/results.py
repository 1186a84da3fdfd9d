"""What every result is: a frame, a figure, and a sentence; in a cell, the figure shows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


class Result(ABC):
    """Numbers about checkpoints: `.frame()` to go on with, `.plot()` to look at."""

    @abstractmethod
    def frame(self) -> pd.DataFrame:
        """The numbers, tidy."""

    @abstractmethod
    def plot(self) -> go.Figure:
        """The picture of them."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """What there is to see, in a sentence."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.headline}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        drawn: dict[str, Any] = self.plot()._repr_mimebundle_(include, exclude)
        return drawn | {"text/plain": repr(self)}
