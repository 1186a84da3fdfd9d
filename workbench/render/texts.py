"""What a pipeline's text encoders say of each prompt, kept: so that they run once for a prompt, and need not stay on the device."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_KEPT_BYTES = 256 << 20


class KnownTexts:
    """Stands before a pipeline's `encode_prompt` and answers for it what it has answered before, prompt by prompt.

    `contents` says which weights the text encoders hold: equal contents mean equal answers.
    """

    def __init__(self, pipeline: DiffusionPipeline, contents: Callable[[], object]) -> None:
        self._contents = contents
        self._known: OrderedDict[object, Any] = OrderedDict()
        self._bytes = 0
        encode = getattr(pipeline, "encode_prompt", None)
        if encode is not None:  # the few that have none encode in their call
            self._encode, self._signature = encode, inspect.signature(encode)
            pipeline.encode_prompt = self._answer

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._bytes = 0

    def _answer(self, *given: Any, **named: Any) -> Any:
        bound = self._signature.bind(*given, **named)
        prompts = bound.arguments.get("prompt")
        if not isinstance(prompts, list) or len(prompts) < 2:
            return self._known_or_encoded(bound.arguments)
        listed = {name for name, value in bound.arguments.items() if _texts(value, len(prompts))}
        rows = []
        for i in range(len(prompts)):
            asked = {name: [value[i]] if name in listed else value for name, value in bound.arguments.items()}
            rows.append(self._known_or_encoded(asked))
        joined = _joined(rows)
        # prompts of different lengths are padded to the longest, which only the pipeline knows how to do
        return self._known_or_encoded(bound.arguments) if joined is _UNEVEN else joined

    def _known_or_encoded(self, asked: dict[str, Any]) -> Any:
        key = repr((self._contents(), sorted((name, _named(value)) for name, value in asked.items())))
        if any(isinstance(value, torch.Tensor) for value in asked.values()):
            return self._called(asked)
        if key not in self._known:
            answer = self._called(asked)
            self._known[key] = _moved(answer, "cpu")
            self._bytes += _size(answer)
            while self._bytes > _KEPT_BYTES and len(self._known) > 1:
                self._bytes -= _size(self._known.popitem(last=False)[1])
            return answer
        self._known.move_to_end(key)
        return _moved(self._known[key], asked.get("device"))

    def _called(self, asked: dict[str, Any]) -> Any:
        bound = self._signature.bind_partial()
        bound.arguments.update(asked)
        return self._encode(*bound.args, **bound.kwargs)


_UNEVEN = object()


def _texts(value: object, count: int) -> bool:
    """Whether an argument has one text for each prompt."""
    return isinstance(value, list) and len(value) == count and all(isinstance(one, str) for one in value)


def _named(value: object) -> str:
    return f"{type(value).__name__} {value!r}"


def _joined(rows: list[Any]) -> Any:
    """One answer for all prompts, of one for each; `_UNEVEN` where their shapes differ."""
    first = rows[0]
    if isinstance(first, tuple | list):
        if any(len(row) != len(first) for row in rows):
            return _UNEVEN
        if isinstance(first, list):  # a list has an entry for each prompt
            return [entry for row in rows for entry in row]
        parts = [_joined([row[i] for row in rows]) for i in range(len(first))]
        return _UNEVEN if any(part is _UNEVEN for part in parts) else tuple(parts)
    if not isinstance(first, torch.Tensor):
        return first if all(type(row) is type(first) and row == first for row in rows) else _UNEVEN
    if any(not isinstance(row, torch.Tensor) or row.shape != first.shape for row in rows):
        return _UNEVEN
    # what is not by prompt, such as Flux's positions of tokens, is the same for all
    return torch.cat(rows) if first.shape[:1] == (1,) else first


def _moved(answer: Any, device: Any) -> Any:
    if isinstance(answer, tuple | list):
        return type(answer)(_moved(one, device) for one in answer)
    # a copy: a pipeline may go on with what it is given in place
    return answer.to(device or answer.device, copy=True) if isinstance(answer, torch.Tensor) else answer


def _size(answer: Any) -> int:
    if isinstance(answer, tuple | list):
        return sum(map(_size, answer))
    return answer.nbytes if isinstance(answer, torch.Tensor) else 0
