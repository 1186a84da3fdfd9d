"""`PreferencePanel`: two pictures, and which is better. What the browser draws is in `preference.js`, what is asked in `preferences`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import anywidget
import traitlets

from workbench.checkpoint import Checkpoint
from workbench.errors import PreferenceError
from workbench.merge import Operator
from workbench.panels.callbacks import in_words, on_change, on_message, tells
from workbench.panels.worker import Worker
from workbench.preferences.candidates import Candidate
from workbench.preferences.choices import ANSWERS, Answer, Comparison
from workbench.preferences.elicitation import Question
from workbench.preferences.ranking import Ranking
from workbench.preferences.starting import elicitation
from workbench.recipe import Recipe
from workbench.sweeps import Sweep

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from PIL.Image import Image

    from workbench.render import Renderer

    Candidates = Mapping[str, Checkpoint] | Sequence[Checkpoint] | Sweep | Operator | Callable[..., Checkpoint]

_HERE = Path(__file__).parent


@final
class PreferencePanel(anywidget.AnyWidget):
    """Two pictures of one prompt and seed side by side, without names: which is better? By clicks, or the keys that its buttons name.

    `candidates` are checkpoints, merges or not, by name or in a list, or a sweep. Or an operator, with its `inputs`, or a function of
    options: then merges are proposed from `space` (as `wb.search` has it; None takes the operator's declaration), each where it may be
    better than the best so far. All `prompts` and `seeds` are drawn of each candidate, once; a sweep has its own. `settings`
    (`steps`, `guidance`, ...) are those of pictures. The same choices and `seed` lead to the same next pair.

    Choices are kept in `folder/name` and counted again when the panel is made again. `names` shows the ranking. What cannot be drawn is
    said, and left out. Raises PreferenceError for what cannot be chosen between, and for kept choices that cannot be read; SearchError
    for a space that makes no sense; RenderError for pictures that cannot be asked for.
    """

    _esm = _HERE / "preference.js"
    _css = _HERE / "preference.css"

    pictures = traitlets.List(traitlets.Bytes(), read_only=True).tag(sync=True)  # left and right as PNG files
    question = traitlets.Int(0, read_only=True).tag(sync=True)  # counts those that were shown; 0 while the next is drawn
    asked = traitlets.Unicode(read_only=True).tag(sync=True)  # prompt and seed
    progress = traitlets.Unicode(read_only=True).tag(sync=True)
    said = traitlets.Unicode(read_only=True).tag(sync=True)
    names = traitlets.Bool(False).tag(sync=True)
    rows: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)  # of the ranking, where names are shown
    outcome = traitlets.Unicode(read_only=True).tag(sync=True)  # the best one's recipe, likewise

    def __init__(
        self,
        candidates: Candidates,
        space: Mapping[str, Any] | None = None,
        *,
        prompts: str | Sequence[str] | None = None,
        seeds: int | Sequence[int] = (0, 1),
        inputs: Mapping[str, Any] | None = None,
        name: str = "preferences",
        folder: str | Path = "out/preferences",
        renderer: Renderer | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self._worker, self._shown = Worker(), 0
        self._question: Question | None = None
        given: dict[str, Any] = {"prompts": prompts, "seeds": seeds, "inputs": inputs, "renderer": renderer, "seed": seed, **settings}
        self._elicitation = elicitation(candidates, space, name=name, folder=Path(folder), **given)
        super().__init__()
        tells(self, self._say)
        on_change(self, lambda _: self._show_names(), "names")
        on_message(self, self._heard)
        self._next()

    @property
    def choices(self) -> list[Comparison]:
        """What was chosen between these candidates, the oldest first."""
        return self._elicitation.choices

    @property
    def ranking(self) -> Ranking:
        """What the choices say. Raises PreferenceError where there is nothing to rank."""
        return self._elicitation.ranking

    @property
    def best(self) -> Candidate:
        """The best so far; `.open()` is its checkpoint. Raises PreferenceError where nothing was chosen yet."""
        return self.ranking.best

    @property
    def recipe(self) -> Recipe | None:
        """The best so far as data; None when it is a plain file."""
        return self.best.recipe

    @property
    def problems(self) -> dict[str, str]:
        """What went wrong with candidates, which are left out, by name."""
        return self._elicitation.problems

    def frame(self) -> pd.DataFrame:
        """The ranking: one row per candidate, the strongest first."""
        return self.ranking.frame()

    def plot(self) -> go.Figure:
        """The ranking as a figure."""
        return self.ranking.plot()

    def to_csv(self, path: str | Path) -> Path:
        """Write all kept choices as a table, names included."""
        return self._elicitation.store.to_csv(Path(path))

    def choose(self, answer: Answer) -> None:
        """Answer the question that is shown: "left", "right", "tie" or "neither". Raises PreferenceError while there is none."""
        if answer not in ANSWERS:
            raise PreferenceError(f"answer must be one of {', '.join(map(repr, ANSWERS))}, got {answer!r}")
        question = self._question
        if question is None:
            raise PreferenceError(f"no question is shown: {self.said or 'the next pictures are being drawn; panel.wait() waits for them'}")
        try:
            self._elicitation.answer(question, answer)
        except Exception:
            self._open()  # the page takes the number that it has as answered
            raise
        self._next()

    def undo(self) -> None:
        """Take back the last choice; its question is asked again. Raises PreferenceError when there is none."""
        self._elicitation.undo()
        self._next()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until a question is shown and what may come next is drawn; returns whether that came about in so many seconds."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Take it down, and draw no more."""
        self._worker.cancel()
        self._question = None
        if self.comm is not None:
            super().close()
            self.set_trait("pictures", [])

    def _next(self) -> None:
        """Find the next question, beside whatever else is going on."""
        self._question = None
        self.set_trait("question", 0)
        self._worker.submit(self._prepare)

    def _prepare(self, outdated: Callable[[], bool]) -> None:
        try:
            question = self._elicitation.ask()
            if not outdated():
                self._show(question)
            self._elicitation.draw_ahead(question, outdated)
        except Exception as error:  # nobody else would say what goes wrong on this thread
            self._say("; ".join([in_words(error), *self._left_out()]))

    def _show(self, question: Question) -> None:
        pictures = [_png(one.picture(question.picture)) for one in (question.left, question.right)]
        prompt, seed = question.shown
        self.set_trait("pictures", pictures)
        self.set_trait("asked", f"{prompt} · seed {seed}")
        self.set_trait("progress", self._elicitation.progress)
        self._say("; ".join([*self._left_out(), *self._remarks(question)]))
        self._show_names()
        self._question = question
        self._open()

    def _open(self) -> None:
        """Let the page answer what it shows, under a number that it does not know yet."""
        self._shown += 1
        self.set_trait("question", self._shown)

    def _left_out(self) -> list[str]:
        return [f"left out: {name}: {problem}" for name, problem in self.problems.items()]

    def _remarks(self, question: Question) -> list[str]:
        others = self._elicitation.others
        told = [f"{others} kept choices are of other candidates or settings, and are not counted"] if others else []
        return told + (["these two pictures were shown before; more prompts or seeds would tell more"] if question.again else [])

    def _show_names(self) -> None:
        """The ranking and the best one's recipe, where they are asked for and there are any."""
        rows: list[dict[str, Any]] = []
        outcome = ""
        if self.names and self.choices:
            ranking = self.ranking
            rows, outcome = ranking.frame().to_dict("records"), _outcome(ranking.best)
        elif self.names:
            outcome = "nothing was chosen yet"
        self.set_trait("rows", rows)
        self.set_trait("outcome", outcome)

    def _heard(self, content: Mapping[str, Any], buffers: Sequence[object]) -> None:
        """What a person did in the browser."""
        if content["do"] == "undo":
            self.undo()
        elif content["do"] == "export":
            self._say(f"written: {_near(self.to_csv(self._elicitation.store.folder / 'choices.csv'))}")
        elif content["do"] == "choose" and content["question"] == self.question:  # and not one that was answered meanwhile
            self.choose(content["answer"])

    def _say(self, text: str) -> None:
        self.set_trait("said", text)


def _outcome(best: Candidate) -> str:
    target = best.job.target
    return target.to_yaml() if isinstance(target, Recipe) else f"{best.name}: {_near(target)}"


def _near(path: Path) -> Path:
    """As seen from the current folder, where it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _png(picture: Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
