"""What each method is for, in a sentence that follows by rule from what was measured. The numbers are in `comparing_methods`."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.analysis.comparing_methods import AVERAGE, SUM, MethodsCompared, MethodTask, methods_compared
from workbench.wording import enumerated

_SLOW = 10.0  # times averaging's from which on time is worth a word
_ALL = 99  # names that a sentence may list
_OF_BASE = {"base": "what the base draws"}
_NONE = 0.05  # share of pictures up to which a method draws nothing of what was asked


def purpose(compared: MethodsCompared, method: str) -> str:
    """What the numbers say a method is good for here: where no other beats it, where it beats averaging, what it loses."""
    tasks = [task for task in compared.tasks.values() if method in task.methods]
    if not tasks:
        return "not compared: " + "; ".join(dict.fromkeys(task.problems.get(method, "not measured") for task in compared.tasks.values()))
    best = [task for task in tasks if method in task.best]
    found = [_lead(compared, method, tasks, best), _losses(compared, method, tasks), _alike(compared, method), _cost(method, tasks)]
    return ". ".join(one[0].upper() + one[1:] for one in found if one)


def purpose_of(method: str) -> str:
    """That of a method which was compared; nothing of any other."""
    compared = methods_compared()
    return purpose(compared, method) if method in compared.names else ""


def _lead(compared: MethodsCompared, method: str, tasks: Sequence[MethodTask], best: Sequence[MethodTask]) -> str:
    """The first sentence: the strongest that is true."""
    if method == AVERAGE:
        return "what all are compared with" + (f"; for {_names(best)}: among the best there" if best else "")
    verdicts = compared.verdicts(method)
    better = [task for task in tasks if verdicts.get(task.name, 0) > 0]
    worse = [task for task in tasks if verdicts.get(task.name, 0) < 0]
    winning, others = [task for task in better if task in best], [task for task in better if task not in best]
    told = [f"for {_names(winning)}: among the best there, and better than averaging"] if winning else []
    told += [f"better than averaging at {_names(others)}, where others are better still"] if others else []
    told += [f"worse than averaging at {_names(worse)}" if better else f"worse than averaging here: {_names(worse)}"] if worse else []
    told += [_beside_adding(compared, method)] if better and method != SUM and SUM not in compared.same(method) else []
    return "; ".join(filter(None, told)) or "no better than averaging here"


def _beside_adding(compared: MethodsCompared, method: str) -> str:
    """Whether a method that is better than averaging is better than adding too, which asks for nothing."""
    verdicts = compared.verdicts(method, SUM)
    won = [compared.tasks[name] for name, verdict in verdicts.items() if verdict > 0]
    return f"better than adding at {_names(won)}" if won else "nowhere better than adding" if verdicts else ""


def _losses(compared: MethodsCompared, method: str, tasks: Sequence[MethodTask]) -> str:
    """The skills of which less than half is left where it is better than averaging; that it is not says enough elsewhere."""
    if all(task.methods[method].score <= _NONE for task in tasks):
        return "draws next to nothing of what was asked"
    verdicts = compared.verdicts(method)
    at: dict[str, list[MethodTask]] = {}
    for task in tasks:
        if (method == AVERAGE or verdicts.get(task.name, 0) > 0) and (lost := task.lost(method)):
            at.setdefault(enumerated([_OF_BASE.get(skill, skill) for skill in lost], _ALL), []).append(task)
    return f"loses {'; '.join(f'{what} ({_names(some)})' for what, some in at.items())}" if at else ""


def _alike(compared: MethodsCompared, method: str) -> str:
    """That it draws what the sum or the average draws."""
    same = [name for name in (SUM, AVERAGE) if name in compared.same(method)]
    return f"draws what `{same[0]}` draws" if same else ""


def _cost(method: str, tasks: Sequence[MethodTask]) -> str:
    times = [task.methods[method].told["time"] for task in tasks if "time" in task.methods[method].told]
    return f"takes {times[0]:.0f} times as long as averaging" if times and times[0] >= _SLOW else ""


def _names(tasks: Sequence[MethodTask]) -> str:
    return enumerated([task.name for task in tasks], _ALL)
