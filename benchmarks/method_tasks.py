"""What methods are compared at: pairs and triples of the embedded models, and the prompts for what each of them knows. What is
measured of it, and kept, is in `methods`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.demo.captions import BACKGROUNDS, BASE_SHAPES, COLOURS, NEW_SHAPES, PLAIN, STYLES, Subject
from workbench.places import DATA

BASE = "base"


@dataclass(frozen=True)
class Task:
    """Models tuned from one base, whose skills a merge is to keep; `steps` are those of its pictures."""

    name: str
    folder: str
    models: tuple[str, ...]
    steps: int = 8

    def checkpoints(self) -> dict[str, Checkpoint]:
        """The base and the models, by name."""
        return {name: open_checkpoint(DATA / self.folder / f"{name}.safetensors") for name in (BASE, *self.models)}

    @property
    def skills(self) -> tuple[str, ...]:
        """What is asked for: what each model was trained for, and what the base draws. `base-v` was trained for no more than that."""
        return (*(name for name in self.models if name in (*NEW_SHAPES, *STYLES)), BASE)


TASKS = (
    Task("two concepts", "shapes-sd", ("heart", "moon")),
    Task("two styles", "shapes-sd", ("outline", "stripes")),
    Task("a concept and a style", "shapes-sd", ("heart", "outline")),
    Task("two concepts and a style", "shapes-sd", ("heart", "moon", "stripes")),
    Task("epsilon and v-prediction (SDXL)", "shapes-sdxl", ("heart", "base-v"), steps=10),
)
# Options are chosen with the first, and what they come to is reported with the second: no prompt and no seed is in both.
CHOOSING, REPORTING = {"start": 0, "count": 2, "seeds": (100, 101)}, {"start": 2, "count": 2, "seeds": (10, 11, 12, 13)}


def prompts(task: Task, start: int, count: int) -> dict[str, tuple[str, Subject]]:
    """Caption -> the skill it asks for, and what is to be seen: `count` captions for each skill, from the one numbered `start` on."""
    asked = [(skill, subject) for skill in task.skills for subject in _subjects(skill, start, count)]
    return {subject.caption: (skill, subject) for skill, subject in asked}


def _subjects(skill: str, start: int, count: int) -> Sequence[Subject]:
    """Colours and backgrounds take turns, so that those of two numbers differ."""
    shapes = [skill] if skill in NEW_SHAPES else BASE_SHAPES
    style = skill if skill in STYLES else PLAIN
    turns = ((shapes[n % len(shapes)], COLOURS[(2 * n + n // 3) % len(COLOURS)], BACKGROUNDS[n % len(BACKGROUNDS)]) for n in range(24))
    return [Subject(*turn, style) for turn in islice(turns, start, start + count)]


def chosen(names: Sequence[str] | None) -> Mapping[str, Task]:
    """The tasks of these names; all without them."""
    return {task.name: task for task in TASKS if not names or task.name in names}
