"""`from_prompt`: the coefficients of an FFT merge that a prompt asks for, as a recipe keeps them and as numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.conditioning.hypernetworks import Hypernetwork
from workbench.conditioning.text_encoders import Openable, TextEncoder
from workbench.errors import HypernetworkError, TextEncoderError
from workbench.merge.sources import Numbers

Prompt = str | Sequence[str]

_ARGUMENTS = ("model", "clip_l", "clip_g", "tokenizer", "config")  # of TextEncoder, as recipes spell an encoder


def from_prompt(
    prompt: Prompt,
    *,
    encoder: TextEncoder | Openable | Mapping[str, str],
    hypernetwork: Hypernetwork | str | os.PathLike[str] | Mapping[str, str] | None = None,
    seed: int = 0,
) -> Any:
    """What `fft_blend(first, second, coefficients=...)` takes, so that a prompt decides on it.

    Several prompts ask for one merge together: the mean of their embeddings, or all their tokens, are what the hypernetwork
    reads. Without a hypernetwork it is the FFT merge's own: of random weights drawn from `seed`, never trained.

    The result is a mapping that a recipe keeps, `{prompt:, encoder:, hypernetwork:, seed:}`, with the sha256 of what both are made
    of; or plain numbers, when encoder or hypernetwork lie in no file as they are.
    Raises TextEncoderError and HypernetworkError, now, for whatever would go wrong later.
    """
    reader = _encoder(encoder)
    network = hypernetwork if isinstance(hypernetwork, Hypernetwork) else _network(hypernetwork, reader, seed)
    numbers = network.coefficients(network.embed(prompt, reader))
    try:
        source = {**reader.source, "sha256": reader.identity}
    except TextEncoderError:
        return numbers
    told = {"prompt": prompt if isinstance(prompt, str) else list(prompt), "encoder": source}
    if hypernetwork is None:
        return told | {"seed": seed}
    if network.path is None or not network.path.exists() or Hypernetwork.load(network.path).identity != network.identity:
        return numbers
    return told | {"hypernetwork": {"path": str(network.path), "sha256": network.identity}}


def numbers_of(prompt: Any, encoder: Any, hypernetwork: Any, seed: Any) -> Numbers:
    """The numbers a recipe's mapping stands for. Raises TextEncoderError and HypernetworkError."""
    if encoder is None:
        raise TextEncoderError("a prompt needs an encoder too: the path of a checkpoint or folder whose text encoder reads it")
    given = json.dumps([prompt, encoder, hypernetwork, seed], default=str)
    return _remembered(given, _stamps(encoder) + _stamps(hypernetwork))


@lru_cache(64)
def _remembered(given: str, stamps: tuple[object, ...]) -> Numbers:
    """`stamps` tell when files have changed, which then are read anew."""
    prompt, encoder, hypernetwork, seed = json.loads(given)
    reader = _encoder(encoder)
    network = _network(hypernetwork, reader, seed)
    return network.coefficients(network.embed(prompt, reader))


def _encoder(given: Any) -> TextEncoder:
    """The encoder that a recipe, or a path, names."""
    if isinstance(given, TextEncoder):
        return given
    if not isinstance(given, Mapping):
        return TextEncoder(given)
    if unknown := set(given) - {*_ARGUMENTS, "sha256"}:
        raise TextEncoderError(f"an encoder has no {', '.join(map(repr, sorted(unknown)))}; there are {', '.join(_ARGUMENTS)}, sha256")
    reader = TextEncoder(**{name: place for name, place in given.items() if name != "sha256"})
    if given.get("sha256") and reader.identity != given["sha256"]:
        raise TextEncoderError(
            f"{reader!r} is not the encoder that the recipe was made with: its sha256 is {reader.identity}, the recipe's "
            f"{given['sha256']}; find the right files, or take the sha256 out of the recipe"
        )
    return reader


def _network(given: Any, reader: TextEncoder, seed: int) -> Hypernetwork:
    """The hypernetwork that a recipe, or a path, names; the FFT merge's random one when none is."""
    if given is None:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise HypernetworkError(f"seed must be a whole number from 0 to 2**64 - 1, got {seed!r}")
        return Hypernetwork(reader.width, seed=seed)
    spelled = dict(given) if isinstance(given, Mapping) else {"path": given}
    if set(spelled) - {"path", "sha256"} or "path" not in spelled:
        raise HypernetworkError(f"a hypernetwork is a path, or {{path:, sha256:}}, got {given!r}")
    network = Hypernetwork.load(spelled["path"])
    if spelled.get("sha256") and network.identity != spelled["sha256"]:
        raise HypernetworkError(
            f"{spelled['path']} is not the hypernetwork that the recipe was made with: its sha256 is {network.identity}, the recipe's "
            f"{spelled['sha256']}; find the right file, or take the sha256 out of the recipe"
        )
    return network


def _stamps(given: Any) -> tuple[object, ...]:
    """What changes when a file does that is named anywhere in `given`."""
    if isinstance(given, Mapping):
        return tuple(stamp for one in given.values() for stamp in _stamps(one))
    path = Path(given) if isinstance(given, (str, os.PathLike)) else None
    if path is None or not path.exists():
        return ()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
