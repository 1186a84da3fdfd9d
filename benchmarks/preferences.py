"""Whether choices by eye find the best: simulated judges who know it, with the fits, pairs and proposals of `wb.PreferencePanel`.

python -m benchmarks.preferences ranking [--runs 100] [--choices 40] [--folder out/benchmarks]
python -m benchmarks.preferences search [--runs 50] [--choices 30] [--folder out/benchmarks]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.preferences.bradley_terry import PRIOR_DEVIATION, bradley_terry
from workbench.preferences.duels import Duel
from workbench.preferences.pairing import SURE, chances, choices_left, next_pair
from workbench.preferences.proposing import Cube, proposal, still_to_win
from workbench.preferences.surrogate import fit_surrogate
from workbench.searches.space import space_of

_ITEMS = 8
_RIGHT = (0.0, 0.7, 0.75, 0.8)  # how often the better one of two neighbours is chosen; 0 for strengths as the prior has them
_LONG = 3  # times as many choices for these, in which the best two may be much alike
_RANGES = (10.0, 20.0, math.inf)  # log-odds between the best and the worst there is; without noise
_TOLD = (1, 5, 10, 20, 30)  # choices after which the estimate of how many more it takes is held against what it took

Strength = Callable[[float, float], float]


def prefers(gap: float, judge: np.random.Generator) -> float:
    """1 where the first is chosen, whose strength is `gap` above the second's, and 0 otherwise."""
    return float(judge.random() < 1 / (1 + math.exp(min(-gap, 500))))


def ranked(right: float, seed: int, most: int) -> list[dict[str, float]]:
    """A row after each choice: whether the best leads, and how many more are said.

    Strengths are evenly spaced, the better of two neighbours being chosen with probability `right`; for 0 they are drawn from the prior.
    """
    numbers = np.random.default_rng(seed)
    drawn, order = PRIOR_DEVIATION * numbers.normal(size=_ITEMS), numbers.permutation(_ITEMS)
    strengths = order * math.log(right / (1 - right)) if right else drawn
    duels: list[Duel] = []
    rows = []
    mean, covariance = bradley_terry(_ITEMS, duels)
    for count in range(1, most + 1):
        first, second = next_pair(mean, covariance, seed + count)
        duels.append(Duel(first, second, prefers(strengths[first] - strengths[second], numbers)))
        mean, covariance = bradley_terry(_ITEMS, duels)
        surely = chances(mean, covariance).max() >= SURE
        left = 0 if surely else choices_left(mean, covariance) if count in _TOLD else math.nan
        rows.append({"right": right, "run": seed, "choices": count, "found": mean.argmax() == strengths.argmax(), "left": left})
    return rows


def ranking(runs: int, most: int) -> pd.DataFrame:
    return pd.DataFrame([row for right in _RIGHT for seed in range(runs) for row in ranked(right, seed, most if right else _LONG * most)])


def tell_ranking(frame: pd.DataFrame) -> None:
    most = frame.groupby("right")["choices"].max().min()
    for right, part in frame.groupby("right"):
        last = part[part["choices"] == most]
        sure = part[part["left"] == 0].groupby("run").first()
        beside = f"sure in {len(sure)} runs, and right then in {sure['found'].mean():.0%}"
        name = f"neighbours told apart {right:.0%}" if right else "strengths as the prior has them"
        print(f"{name}: the best found in {last['found'].sum()} of {len(last)} runs; {beside}")
        asked = part[part["choices"].isin(_TOLD)]
        took = asked["run"].map(sure["choices"]).fillna(math.inf) - asked["choices"]  # inf: not within all choices
        still = asked.assign(took=took)[took > 0].groupby("choices")[["left", "took"]].median()
        print(
            "  more choices said and taken (medians):",
            ", ".join(f"after {n}: {row.left:.0f}, {row.took:.0f}" for n, row in still.iterrows()),
        )


def peak(x: float, y: float) -> float:
    """A single broad peak, off the middle."""
    return math.exp(-((x - 0.7) ** 2 + (y - 0.3) ** 2) / (2 * 0.35**2))


def two_peaks(x: float, y: float) -> float:
    """A peak, and a lower one far from it, each a fifth of the square wide or less."""
    other = 0.6 * math.exp(-((x - 0.2) ** 2 + (y - 0.8) ** 2) / (2 * 0.15**2))
    return math.exp(-((x - 0.7) ** 2 + (y - 0.3) ** 2) / (2 * 0.2**2)) + other


def branin(x: float, y: float) -> float:
    """Branin's function, upside down, on its usual square: three equal peaks. Source: Dixon and Szego 1978."""
    a, b = 15 * x - 5, 15 * y
    return -((b - 5.1 / (4 * math.pi**2) * a**2 + 5 / math.pi * a - 6) ** 2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(a) + 10)


def searched(strength: Strength, span: float, seed: int, most: int) -> list[dict[str, float]]:
    """A row after each choice: how far the best so far, as the surrogate has it, is below the optimum, as a share of the range."""
    cube = Cube(space_of({"x": (0.0, 1.0), "y": (0.0, 1.0)}, None))
    axis = np.linspace(0, 1, 201)
    every = [strength(x, y) for x in axis for y in axis]
    low, high = min(every), max(every)
    judge = np.random.default_rng([seed, 1])
    points = cube.spread(seed)[:2]
    pair, duels, rows = (0, 1), [], []
    for count in range(1, most + 1):
        worth = [(strength(point["x"], point["y"]) - low) / (high - low) for point in points]
        gap = worth[pair[0]] - worth[pair[1]]
        duels.append(Duel(*pair, float(gap > 0) if math.isinf(span) else prefers(span * gap, judge)))
        began = time.monotonic()
        surrogate = fit_surrogate(np.stack([cube.row(point) for point in points]), duels)
        best = int(surrogate(surrogate.points)[0].argmax())
        rows.append({"run": seed, "choices": count, "span": span, "regret": 1 - worth[best]})
        found = proposal(surrogate, cube, points[best], points, seed + count)
        rows[-1]["seconds"] = time.monotonic() - began
        if count == most:
            share = still_to_win(surrogate, cube, points[best], seed)
            rows[-1] |= {"said": share, "is": 1 / (1 + math.exp(-span * rows[-1]["regret"])) if math.isfinite(span) else math.nan}
        assert found is not None
        points.append(found)
        pair = best, len(points) - 1
    return rows


def search(runs: int, most: int) -> pd.DataFrame:
    rows = [
        {"function": strength.__name__, **row}
        for strength in (peak, two_peaks, branin)
        for span in _RANGES
        for seed in range(runs)
        for row in searched(strength, span, seed, most)
    ]
    return pd.DataFrame(rows)


def tell_search(frame: pd.DataFrame) -> None:
    for (name, span), part in frame.groupby(["function", "span"], sort=False):
        last = part[part["choices"] == part["choices"].max()]
        within = f"within 5 % in {(last['regret'] <= 0.05).mean():.0%} of {len(last)} runs"
        noise = "no noise" if math.isinf(span) else f"a range of {span:g} log-odds"
        said = "" if math.isinf(span) else f"; left to win: said {last['said'].median():.2f}, is {last['is'].median():.2f}"
        print(f"{name}, {noise}: median regret {last['regret'].median():.1%} of the range, {within}{said}")
    print(f"a fit and a proposal take {frame['seconds'].median() * 1e3:.0f} ms (median), {frame['seconds'].max() * 1e3:.0f} ms at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ranking", "search"])
    parser.add_argument("--runs", type=int)
    parser.add_argument("--choices", type=int)
    parser.add_argument("--folder", type=Path, default=Path("out/benchmarks"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    measure, tell, runs, most = (ranking, tell_ranking, 100, 40) if given.what == "ranking" else (search, tell_search, 50, 30)
    frame = measure(given.runs or runs, given.choices or most)
    frame.to_csv(given.folder / f"preferences-{given.what}.csv", index=False, float_format="%.6g")
    tell(frame)


if __name__ == "__main__":
    main()
