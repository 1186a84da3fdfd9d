"""`advise` and the table of methods behind it: verdicts, sentences and ranks by hand, and what the kept numbers must be like."""

from __future__ import annotations

import json
import math

import pytest
import torch
from held import Held

import workbench as wb
from workbench.analysis import advising, comparing_methods
from workbench.analysis.comparing_methods import methods_compared, read
from workbench.analysis.measures import MEASURES, distance, measures
from workbench.analysis.purposes import purpose
from workbench.errors import InputError, WorkbenchError
from workbench.operators import own
from workbench.places import DATA

NUMBERS = {"models": 2, "predictions": 1, "cosine": 0.1, "overlap": 1.2, "conflict": 0.4, "length": 0.05, "balance": 0.9, "directions": 0.6}


def drew(one, other, *, spread=0.0, **told):
    """What something drew: shares of two skills."""
    score = (one + other) / 2
    skills = {"heart": one, "moon": other}
    return {"options": {}, "score": score, "spread": spread, "seeds": [score], "skills": skills, "clip": 90.0, "from": {}} | told


def task(cosine=0.1, **methods):
    alone = {"base": drew(0, 0), "heart": drew(1, 0), "moon": drew(0, 1)}
    return {"models": ["heart", "moon"], "pictures": 20, "measures": NUMBERS | {"cosine": cosine}, "alone": alone, "methods": methods}


def table(below=None, **tasks):
    names = list(dict.fromkeys(name for one in tasks.values() for name in one["methods"]))
    below = below or [[0.1] * row for row in range(len(names))]
    return read(
        {"asked": {}, "tasks": {name.replace("_", " "): one for name, one in tasks.items()}, "apart": {"methods": names, "below": below}}
    )


AVERAGE = {"weighted_average": drew(0.5, 0.5)}


def test_two_are_equal_within_their_deviations_together_or_one_picture():
    found = table(
        one=task(
            weighted_average=drew(0.5, 0.5, spread=0.06),
            ties=drew(0.6, 0.6, spread=0.08),  # hypot(0.06, 0.08) = 0.1
            della=drew(0.6, 0.62, spread=0.08),
            slerp=drew(0.44, 0.45),
            nearest=drew(0.1, 0.1),
        )
    )
    assert {name: found.verdicts(name)["one"] for name in found.names} == {
        "weighted_average": 0,
        "ties": 0,
        "della": 1,
        "slerp": 0,
        "nearest": -1,
    }
    one, other = table(one=task(ties=drew(0.5, 0.5), della=drew(0.5, 0.6))).tasks["one"].methods.values()
    assert other.against(one, 20) == 0  # 0.05 is one of 20 pictures
    assert other.against(one, 40) == 1


def test_the_best_are_those_that_none_beats_and_a_skill_is_lost_below_half():
    found = table(one=task(ties=drew(1, 0.8), della=drew(1, 0.75, spread=0.03), slerp=drew(1, 0.4))).tasks["one"]
    assert found.best == {"ties", "della"}
    assert [found.lost(name) for name in ("ties", "slerp")] == [[], ["moon"]]


@pytest.mark.parametrize(
    ("drawn", "sentence"),
    [
        (drew(0.5, 0.52), "No better than averaging here"),
        (drew(1, 1), "For one and two: among the best there, and better than averaging; nowhere better than adding"),
        (drew(0.8, 0.8), "Better than averaging at one and two, where others are better still"),
        (
            drew(0.8, 0.4, time=12.2),
            "Better than averaging at one and two, where others are better still; nowhere better than adding. Loses moon",
        ),
        (drew(0.3, 0.0), "Worse than averaging here: one and two"),
        (drew(0.0, 0.05), "Worse than averaging here: one and two. Draws next to nothing of what was asked"),
    ],
)
def test_a_sentence_follows_from_the_numbers(drawn, sentence):
    methods = AVERAGE | {"task_arithmetic": drew(1, 1), "ties": drawn}
    assert purpose(table(one=task(**methods), two=task(**methods)), "ties").startswith(sentence)


def test_what_beats_adding_says_so():
    found = table(one=task(**AVERAGE, task_arithmetic=drew(0.8, 0.6), ties=drew(1, 1)))
    assert purpose(found, "ties") == "For one: among the best there, and better than averaging; better than adding at one"
    assert purpose(found, "task_arithmetic") == "Better than averaging at one, where others are better still"


def test_what_takes_long_and_what_is_lost_ends_the_sentence():
    found = table(one=task(**AVERAGE, ties=drew(1, 0.2, time=12.2), della=drew(1, 0.5, time=9.9)))
    assert purpose(found, "ties").endswith("Loses moon (one). Takes 12 times as long as averaging")
    assert purpose(found, "weighted_average") == "What all are compared with"
    assert purpose(found, "della") == "For one: among the best there, and better than averaging"


def test_a_method_that_was_not_measured_says_why():
    found = table(one=task(**AVERAGE, slerp={"problem": "slerp takes two models"}))
    assert purpose(found, "slerp") == "not compared: slerp takes two models"
    assert purpose(found, "ties") == "not compared: not measured"
    assert purpose(found, "weighted_average") == "What all are compared with; for one: among the best there"
    assert found.frame().set_index("method").loc["slerp", "problem"] == "slerp takes two models"


def test_methods_that_draw_the_same_are_told_so_and_one_point_of_the_map():
    methods = {**AVERAGE, "task_arithmetic": drew(1, 1), "add_delta": drew(1, 1), "slerp": drew(0.5, 0.5)}
    found = table([[], [0.3], [0.3, 0.001], [0.1, 0.2, 0.2]], one=task(**methods))
    assert purpose(found, "add_delta").endswith("Draws what `task_arithmetic` draws")
    points = found.plot().data[0]
    assert list(points.customdata) == ["weighted_average", "task_arithmetic, add_delta", "slerp"]
    assert list(points.marker.color) == [0.5, 1.0, 0.5]
    near, far = (math.dist((points.x[0], points.y[0]), (points.x[i], points.y[i])) for i in (2, 1))
    assert near / far == pytest.approx(1 / 3)


def test_methods_are_ranked_by_the_task_that_is_nearest():
    found = table(
        alike=task(cosine=0.9, **AVERAGE, ties=drew(0.2, 0.2), della=drew(1, 1)),
        apart=task(cosine=0.0, **AVERAGE, ties=drew(1, 1), della=drew(0.2, 0.2)),
    )
    tasks = list(found.tasks.values())
    assert [one.method for one in advising.ranked(found, NUMBERS | {"cosine": 0.8}, tasks)] == ["della", "weighted_average", "ties"]
    assert [one.method for one in advising.ranked(found, NUMBERS | {"cosine": 0.1}, tasks)] == ["ties", "weighted_average", "della"]
    assert advising.ranked(found, NUMBERS | {"models": 3}, tasks) == []  # neither was tried with three
    assert distance(NUMBERS, NUMBERS) == 0
    assert distance(NUMBERS, NUMBERS | {"cosine": 0.35}) == pytest.approx(math.sqrt(1 / len(MEASURES)))


def test_how_often_advice_held_is_counted_with_each_task_left_out():
    strong, weak = drew(1, 1), drew(0.2, 0.2)
    first = {**AVERAGE, "ties": strong, "della": weak, "slerp": weak, "nuslerp": weak}
    last = {**AVERAGE, "ties": weak, "della": weak, "slerp": weak, "nuslerp": strong}
    assert advising.held(table(one=task(**first), two=task(**first))) == {"one": (True, True), "two": (True, True)}
    found = table(one=task(**first), two=task(**last))
    assert [one[1] for one in advising.held(found).values()] == [False, False]
    # one of five is the best: three at random have it in 3 of 5
    assert "drawn at random would be at 60% of them" in advising.held_in_words(found)
    assert "is not known" in advising.held_in_words(table(one=task(**first)))


def test_advice_on_real_models_shows_methods_with_reasons_and_how_often_it_held():
    base, *models = (wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in ("base", "heart", "moon"))
    found = wb.advise(base, models, progress=False)
    assert found.measures == pytest.approx(methods_compared().tasks["two concepts"].measures, abs=2e-4)
    assert found.nearest.name == "two concepts"
    assert set(found.methods) & found.nearest.best
    assert len(set(found.methods)) == 3
    assert found.right in found.headline
    frame = found.frame()
    assert frame["why"].tolist() == [purpose(found.compared, method) for method in found.methods]
    assert (frame["expected"] >= frame["averaging"]).all()
    assert frame["options"].tolist() == [found.nearest.methods[method].told["options"] for method in found.methods]
    assert str(found.choices[0]) in found.headline
    shown = found._repr_mimebundle_()
    assert all(method in shown["text/html"] for method in found.methods)
    assert found.plot().data[0].y[0] == "two concepts"


def test_advice_refuses_what_has_no_change_or_no_company():
    base = Held({"x": torch.ones(4, 4)}, "base")
    other = Held({"x": torch.ones(4, 4) + torch.eye(4) / 100}, "other")
    with pytest.raises(InputError, match="same does not differ from base"):
        wb.advise(base, [Held({"x": torch.ones(4, 4)}, "same"), other], progress=False)
    with pytest.raises(InputError, match="two or more"):
        wb.advise(base, [other], progress=False)


def test_measures_by_hand():
    base = Held({"x": 4 * torch.eye(2)}, "base")
    one = Held({"x": base["x"] + torch.tensor([[3.0, 0], [0, 0]])}, "one")
    other = Held({"x": base["x"] + torch.tensor([[0.0, 0], [0, 6]])}, "other")
    found = measures(base, [one, other], progress=False)
    root = math.sqrt(32)
    assert found["length"] == pytest.approx(4.5 / root, abs=1e-4)
    assert (found["models"], found["predictions"], found["cosine"], found["balance"], found["directions"]) == (2, 1, 0, 0.5, 0.5)


def test_the_kept_numbers_are_of_methods_there_are_and_add_up():
    found = methods_compared()
    assert set(found.names) <= set(own())
    for one in found.tasks.values():
        assert set(one.methods) | set(one.problems) <= set(own())
        assert list(one.alone) == ["base", *one.models]
        for score in (*one.methods.values(), *one.alone.values()):
            assert score.score == pytest.approx(sum(score.skills.values()) / len(score.skills), abs=1e-3)
            assert score.score == pytest.approx(sum(score.seeds) / len(score.seeds), abs=1e-3)


def test_damaged_numbers_say_what_writes_them_anew(tmp_path, monkeypatch):
    path = tmp_path / "methods.json"
    path.write_text(json.dumps({"tasks": {}}))
    monkeypatch.setattr(comparing_methods, "_KEPT", path)
    with pytest.raises(WorkbenchError, match=r"python -m benchmarks\.methods writes it anew"):
        methods_compared.__wrapped__()
