"""`Elicitation`: asks which of two pictures is better, keeps the answers, asks next where it learns most. How it looks, is a panel's."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from workbench.errors import PreferenceError
from workbench.preferences.candidates import Candidate, CandidatePictures
from workbench.preferences.choices import Answer, ChoiceStore, Comparison
from workbench.preferences.ranking import Ranking
from workbench.preferences.sources import CandidateSource

Shown = tuple[str, int]  # the prompt and the seed of a picture, which is the same for both sides


@final
@dataclass(frozen=True)
class Question:
    """Two candidates, drawn, by one of their pictures; `again` when these two pictures were shown beside each other before."""

    left: Candidate
    right: Candidate
    picture: int
    shown: Shown
    again: bool

    def answered(self, answer: Answer) -> Comparison:
        """The choice that an answer makes."""
        return Comparison(self.left.side, self.right.side, *self.shown, answer)


@final
class Elicitation:
    """Questions about the candidates of a source; the same `seed` and choices give the same question.

    Which side a candidate is on is drawn for every question. Drawing may take long: `ask` and `draw_ahead` are for a thread of their own,
    everything else answers at once, from any thread, when `ask` has once come back. Raises PreferenceError for choices that cannot be kept.
    """

    def __init__(
        self, source: CandidateSource, drawing: CandidatePictures, store: ChoiceStore, pictures: Sequence[Shown], seed: int = 0
    ) -> None:
        self.store, self._source, self._drawing = store, source, drawing
        self._pictures, self._seed = list(pictures), seed
        self._alone = threading.RLock()
        self._choices = store.read()
        self._own: set[str] = set()  # ids of the choices that were made here, beside those of other panels

    @property
    def choices(self) -> list[Comparison]:
        """All that are kept and concern these candidates, the oldest first."""
        with self._alone:
            return self._source.counted(self._choices)

    @property
    def others(self) -> int:
        """How many are kept that concern other candidates, or settings, and are not counted."""
        return len(self._choices) - len(self.choices)

    @property
    def problems(self) -> dict[str, str]:
        """What went wrong with candidates, which are left out, by name."""
        with self._alone:
            return dict(self._source.problems)

    @property
    def ranking(self) -> Ranking:
        """What the choices say. Raises PreferenceError where there is nothing to rank."""
        with self._alone:
            return self._source.ranking(self._choices)

    @property
    def progress(self) -> str:
        """How far it is, in words that name no candidate. Raises PreferenceError where nothing can be asked."""
        with self._alone:
            return self._source.progress(self._choices)

    def ask(self) -> Question:
        """The next question, its pictures drawn. Raises PreferenceError when there are no two candidates that can be drawn."""
        self._read()
        return self._ask(self._choices)

    def answer(self, question: Question, answer: Answer) -> None:
        """Keep an answer."""
        choice = question.answered(answer)
        kept = self.store.add(choice)
        with self._alone:
            self._choices = kept
        self._own.add(choice.id)

    def undo(self) -> Comparison:
        """Take back the last choice that was made here, or else before, and return it. Raises PreferenceError when there is none."""
        self._read()
        choices = self.choices
        if not choices:
            raise PreferenceError("there is no choice to take back")
        last = next((one for one in reversed(choices) if one.id in self._own), choices[-1])
        kept = self.store.take_back(last)
        with self._alone:
            self._choices = kept
        return last

    def draw_ahead(self, question: Question, outdated: Callable[[], bool]) -> None:
        """Draw what will be asked about after either picture is chosen, until that is known."""
        for answer in ("left", "right"):
            if not outdated():
                self._ask([*self._choices, question.answered(answer)])

    def _read(self) -> None:
        """Another panel may have added some, or taken some back."""
        with self._alone:
            self._choices = self.store.read()

    def _ask(self, choices: Sequence[Comparison]) -> Question:
        problem = ""
        for _ in range(self._source.patience):
            with self._alone:
                pair = self._source.pair(choices, self._seed + len(choices))
            problems = [self._drawing.draw(one) for one in pair]
            if not any(problems):
                return self._question(pair, choices)
            problem = next(filter(None, problems))
            with self._alone:
                for one, wrong in zip(pair, problems, strict=True):
                    if wrong:
                        self._source.leave_out(one, wrong)
        raise PreferenceError(f"{self._source.patience} pairs in a row cannot be drawn; the last one says: {problem}")

    def _question(self, pair: tuple[Candidate, Candidate], choices: Sequence[Comparison]) -> Question:
        """The pair with sides, and the picture that these two were seen by least, and then all."""
        keys = {one.key for one in pair}
        seen = Counter((one.prompt, one.seed) for one in choices if {one.left.key, one.right.key} == keys)
        ever = Counter((one.prompt, one.seed) for one in choices)
        numbers = np.random.default_rng([self._seed, len(choices)])
        order = [int(number) for number in numbers.permutation(len(self._pictures))]
        picture = min(order, key=lambda number: (seen[self._pictures[number]], ever[self._pictures[number]]))
        left, right = pair if numbers.random() < 0.5 else pair[::-1]
        shown = self._pictures[picture]
        return Question(left, right, picture, shown, seen[shown] > 0)
