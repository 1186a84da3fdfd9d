"""`balance`: on pictures whose scores are known by hand; that it is honest, and what it is not given is refused."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from held import Held

import workbench as wb
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import InputError, MergeError, OptionError

LDM = [f"model.diffusion_model.{at}.transformer_blocks.0.attn1.to_q.weight" for at in ("input_blocks.1.1", "output_blocks.3.1")]
WANTED = {"first": (0, 0), "second": (1, 1)}  # which element a prompt asks to be 1


class Drawer:
    """Stands for a renderer: a picture is what the tensors of the loaded model hold, and noise of the seed."""

    def __init__(self, noise: float = 0.0) -> None:
        self.lock, self.noise, self.drawn, self.settings = threading.RLock(), noise, 0, {}

    def load(self, model: wb.Checkpoint, progress: bool = True) -> None:
        self.values = torch.stack([model[key] for key in LDM])

    def images(self, prompts: Sequence[str], seeds: Sequence[int], progress: bool = True, **settings: object) -> list[Picture]:
        self.drawn, self.settings = self.drawn + 1, settings
        return [Picture(self.values, self.noise * np.random.default_rng(seed).normal()) for _ in prompts for seed in seeds]


@dataclass
class Picture:
    values: torch.Tensor
    noise: float


def score(images: Sequence[Picture], prompts: Sequence[str]) -> list[float]:
    """1 where what the prompt asks for is 1 in both blocks, less by the mean distance; and the seed's noise."""
    found = []
    for image, prompt in zip(images, prompts, strict=True):
        element = image.values[:, *WANTED[prompt]]
        found.append(1 - float((element - 1).abs().mean()) + image.noise)
    return found


def base() -> Held:
    return Held({key: torch.zeros(2, 2) for key in LDM}, "base")


def lora(name: str, *changes: list[list[float]]) -> LowRank:
    """One that makes these changes of the two tensors."""
    tensors = {}
    for key, change in zip(LDM, changes, strict=True):
        module = key.removesuffix(".weight")
        tensors |= {f"{module}.lora_up.weight": torch.eye(2), f"{module}.lora_down.weight": torch.tensor(change)}
    return LowRank(InMemory(tensors, name))


FIRST = [[1.0, 0.0], [0.0, 0.0]]


def two(spill: float = 0.5) -> list[LowRank]:
    """The second also adds `spill` to what the first is for."""
    second = [[spill, 0.0], [0.0, 1.0]]
    return [lora("a", FIRST, FIRST), lora("b", second, second)]


def test_it_finds_the_strengths_at_which_nothing_is_lost():
    """At 1 each the first element is 1.5, and the first prompt loses 0.5: a mean of 0.25. At 0.5 and 1 nothing is."""
    drawer = Drawer()
    found = wb.lora.balance(base(), two(), [["first"], ["second"]], drawer, score, steps=3)
    assert found.strengths == [0.5, 1.0]
    assert drawer.settings == {"steps": 3}
    trials = found.trials()
    assert list(trials.columns) == ["1 a", "2 b", "lost", "spread"]
    assert trials.iloc[0].tolist() == pytest.approx([1, 1, 0.25, 0])
    assert trials["lost"].min() == pytest.approx(0)
    frame = found.frame().set_index(["lora", "strengths"])
    assert frame.loc[("a", "1 each"), "lost"] == pytest.approx(0.5)
    assert frame.loc[("a", "alone"), "score"] == pytest.approx(1)
    assert frame.loc[("all", "balanced"), "lost"] == pytest.approx(0)
    assert frame.loc[("a", "balanced"), "strength"] == "0.5"
    assert found.helps
    assert "a 0.5; b 1: lose 0 ± 0 of what each draws alone, strengths of 1 each 0.25" in found.headline
    assert found.headline.endswith("which helps")


def test_its_strengths_are_what_apply_takes():
    loras = two()
    for groups in ((), ("IN*", "OUT*")):
        found = wb.lora.balance(base(), loras, [["first"], ["second"]], Drawer(), score, groups=groups)
        merge = wb.lora.apply(base(), list(zip(loras, found.strengths, strict=True)))
        assert merge[LDM[0]][0, 0].item() == pytest.approx(1)


def test_groups_of_blocks_have_strengths_of_their_own():
    """The second spills into one block alone: there the first has to give way, and not in the other."""
    loras = [lora("a", FIRST, FIRST), lora("b", [[0.5, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]])]
    found = wb.lora.balance(base(), loras, [["first"], ["second"]], Drawer(), score, groups=["IN*", "OUT*"])
    assert found.strengths == [{"blocks": {"IN*": 0.5, "OUT*": 1.0, "default": 1.0}}, {"blocks": {"IN*": 1.0, "OUT*": 1.0, "default": 1.0}}]
    assert list(found.trials().columns)[:3] == ["1 a IN*", "1 a OUT*", "1 a default"]
    assert "a IN* 0.5, OUT* 1, default 1" in found.headline


def test_prompts_for_all_are_what_each_draws_well_alone():
    """The second LoRA draws "first" at 0.5 alone; drawn better together, nothing of that is lost."""
    found = wb.lora.balance(base(), two(), ["first", "second"], Drawer(), score)
    assert found.strengths == [0.5, 1.0]


def test_where_nothing_is_lost_nothing_is_sought():
    drawer = Drawer()
    found = wb.lora.balance(base(), two(0.0), [["first"], ["second"]], drawer, score)
    assert found.strengths == [1.0, 1.0]
    assert len(found.trials()) == 1
    assert drawer.drawn == 2 + 1 + 2 + 1  # alone, together, and with other seeds
    assert not found.helps
    assert found.headline.endswith("for nothing better than 1 each was found")


def test_what_is_good_for_its_seeds_alone_is_told_not_to_help():
    """Together each picture has a score of chance, whatever the strengths: the search finds the luckiest, and no other seed agrees."""

    def chance(images: Sequence[Picture], prompts: Sequence[str]) -> list[float]:
        sums = [float(image.values.sum()) for image in images]
        lucky = [
            np.random.default_rng([round(1000 * total), round(1e6 * abs(image.noise))]).normal()
            for total, image in zip(sums, images, strict=True)
        ]
        return [10.0 if total in (2.0, 3.0) else luck for total, luck in zip(sums, lucky, strict=True)]  # each LoRA alone has 10

    found = wb.lora.balance(base(), two(), [["first"], ["second"]], Drawer(noise=1.0), chance, trials=12)
    trials = found.trials()
    assert trials["lost"].min() < trials["lost"][0] - 0.3
    assert not found.helps
    assert "which does not help: the difference" in found.headline


def test_the_search_ends_at_its_trials_and_gives_the_same_twice():
    for trials in (1, 4):
        one, other = (
            wb.lora.balance(base(), two(), [["first"], ["second"]], Drawer(noise=0.2), score, trials=trials, seeds=[3, 5]) for _ in "ab"
        )
        assert len(one.trials()) == trials
        assert one.trials().equals(other.trials())
        assert one.strengths == other.strengths


def test_noise_that_all_pictures_of_a_seed_share_is_no_loss():
    found = wb.lora.balance(base(), two(), [["first"], ["second"]], Drawer(noise=5.0), score)
    assert found.strengths == [0.5, 1.0]
    assert found.helps


def test_a_scorer_may_give_columns_of_which_one_is_a_number():
    def columns(images: Sequence[Picture], prompts: Sequence[str]) -> dict[str, list]:
        return {"shape": ["circle"] * len(images), "shape_right": score(images, prompts)}

    assert wb.lora.balance(base(), two(), [["first"], ["second"]], Drawer(), columns).strengths == [0.5, 1.0]


def test_it_shows_itself():
    found = wb.lora.balance(base(), two(), [["first"], ["second"]], Drawer(), score)
    assert {trace.name for trace in found.plot().data} == {"alone", "1 each", "balanced"}
    assert repr(found).startswith("<Balanced: a 0.5; b 1: lose")


def test_bad_input_is_refused():
    loras, prompts = two(), [["first"], ["second"]]
    run = wb.lora.balance
    for given, said in (
        ([], r"takes one or more LoRAs in a list, got \[\]"),
        (loras[0], "takes one or more LoRAs in a list"),
        ([base()], "takes LoRAs"),
    ):
        with pytest.raises(InputError, match=said):
            run(base(), given, prompts, Drawer(), score)
    for given in ("first", [], [["first"]], [["first"], []], [["first"], "second"], [["first"], [3]]):
        with pytest.raises(
            InputError, match="balance: prompts must be a list of prompts for all LoRAs, or 2 lists, one for each LoRA; got"
        ):
            run(base(), loras, given, Drawer(), score)
    for options, said in (
        ({"seeds": [1]}, "seeds must be two or more different whole numbers from 0"),
        ({"seeds": [1, 1]}, "seeds must be two or more different"),
        ({"seeds": 4}, "seeds must be two or more different"),
        ({"trials": 0}, "trials must be a whole number from 1, got 0"),
        ({"groups": "IN*"}, "groups must be a list of patterns"),
        ({"groups": ["IN*", "IN*"]}, "groups must differ"),
    ):
        with pytest.raises(OptionError, match=said):
            run(base(), loras, prompts, Drawer(), score, **options)
    drawer = Drawer()
    with pytest.raises(MergeError, match=r"no block matches 'NO\*'"):
        run(base(), loras, prompts, drawer, score, groups=["NO*"])
    assert not drawer.drawn
    for scorer, said in (
        (lambda images, prompts: {"a": [1.0] * len(images), "b": [1.0] * len(images)}, "scorer must give one number.*; it gives a, b"),
        (lambda images, prompts: {"a": ["x"] * len(images)}, "scorer must give one number.*; it gives none"),
        (lambda images, prompts: [1.0], r"scorer gives score of shape \[1\] for 4 pictures"),
        (lambda images, prompts: [float("nan")] * len(images), "scorer gives score that is no finite number for 'first'"),
    ):
        with pytest.raises(OptionError, match=said):
            run(base(), loras, prompts, Drawer(), scorer)
