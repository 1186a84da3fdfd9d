"""`TextEncoder`: prompts in, CLIP's embeddings out, by transformers' own classes. Where the weights lie is in `text_encoder_files`."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.conditioning.text_encoder_files import (
    PARTS,
    StoredEncoder,
    configuration,
    in_checkpoint,
    in_file,
)
from workbench.conditioning.tokenizer_files import load_tokenizer, tokenizer_beside
from workbench.errors import TextEncoderError
from workbench.wording import few

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

Openable = str | os.PathLike[str] | Checkpoint

_ALONE = threading.Lock()  # two encoders at once would each put back the other's number of threads
_LEGACY_END = 2  # what configs of before transformers 4.31 call the end token, whatever it is


class Tokens(NamedTuple):
    """Embeddings of every token: `states` [prompts, tokens, width], float32; `mask` [prompts, tokens], True up to the end token."""

    states: torch.Tensor
    mask: torch.Tensor


@final
class TextEncoder:
    """CLIP's text encoder of a model, one or two: `TextEncoder("model.safetensors")`, `TextEncoder(clip_l=..., clip_g=...)`.

    `model` is a diffusers or transformers folder, a full checkpoint (its own encoders: SD 1.x, SDXL, Flux's CLIP), or an open one,
    also a merge. `clip_l` and `clip_g` are files as ComfyUI saves them; each is loaded into its own class, a CLIPTextModel and a
    CLIPTextModelWithProjection. `tokenizer` is a folder or a name on the hub; without it the one beside the encoder's config is
    taken, else openai/clip-vit-large-patch14. `config` is the folder of a pipeline or an encoder, for sizes that nothing else tells.

    Calculates in float32 on the CPU, one prompt at a time and on one thread: a prompt's bytes do not depend on its company or on the
    number of cores. Files are opened now; libraries and weights are loaded when first needed, and names and shapes judged before.
    Raises TextEncoderError: no text encoder, a missing or unexpected tensor (by name), a shape other than the config's.
    """

    def __init__(
        self,
        model: Openable | None = None,
        *,
        clip_l: Openable | None = None,
        clip_g: Openable | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
    ) -> None:
        files = {kind: given for kind, given in zip(PARTS, (clip_l, clip_g), strict=True) if given is not None}
        if (model is None) == (not files):
            raise TextEncoderError("give either a model (a folder or a checkpoint), or clip_l= and clip_g= (or one of them)")
        given = {**({} if model is None else {"model": model}), **files}
        opened = {role: one if isinstance(one, Checkpoint) else open_checkpoint(one) for role, one in given.items()}
        self._stored = in_checkpoint(opened["model"]) if files == {} else tuple(in_file(opened[kind], kind) for kind in files)
        self._given = {role: one.path if isinstance(one, Checkpoint) else _absolute(one) for role, one in given.items()}
        self._tokenizer_given = None if tokenizer is None else _local_or_name(tokenizer)
        self._config_given = None if config is None else _absolute(config)

    def __repr__(self) -> str:
        return f"<TextEncoder {' + '.join(one.label for one in self._stored)}>"

    @property
    def source(self) -> dict[str, str]:
        """What opens the same again: `TextEncoder(**encoder.source)`. Raises TextEncoderError for what lies in no file."""
        if lost := [role for role, path in self._given.items() if path is None]:
            raise TextEncoderError(f"{self!r}: {lost[0]} lies in no file, so a recipe cannot name it; export it and open the file")
        extra = {"tokenizer": self._tokenizer_given, "config": self._config_given}
        return {role: str(place) for role, place in {**self._given, **extra}.items() if place is not None}

    @property
    def tokenizer(self) -> str:
        """The tokenizer's folder, or its name on the hub."""
        return self._tokenizer_given or tokenizer_beside(folder for _, folder in self._configurations)

    @property
    def width(self) -> int:
        """Numbers in a pooled embedding: the hidden size of clip_l, plus what clip_g projects to (768 + 1280 for SDXL)."""
        return sum(_pooled_width(one, config) for one, (config, _) in zip(self._stored, self._configurations, strict=True))

    @property
    def token_width(self) -> int:
        """Numbers in a token's embedding: the hidden sizes together."""
        return sum(config.hidden_size for config, _ in self._configurations)

    @cached_property
    def limit(self) -> int:
        """Tokens that a prompt may have, with the one that begins it and the one that ends it: 77 for what people have."""
        positions = (config.max_position_embeddings for config, _ in self._configurations)
        limit: int = min(*positions, self._tokenizer.model_max_length)
        return limit

    @cached_property
    def identity(self) -> str:
        """sha256 of all that an embedding depends on: weights in float32, how they are run, the tokenizer's words, the limit.

        Independent of where the files lie, and of the dtype and the layout that they are stored in.
        """
        digest = hashlib.sha256()
        for model in self._models:
            run = {name: getattr(model.config, name) for name in ("num_attention_heads", "hidden_act", "layer_norm_eps")}
            digest.update(json.dumps([type(model).__name__, run], sort_keys=True).encode())
            for name, tensor in sorted(model.state_dict().items()):
                digest.update(f"{name} {list(tensor.shape)}".encode())
                digest.update(memoryview(tensor.contiguous().numpy()).cast("B"))
        digest.update(json.dumps([self._tokenizer.get_vocab(), self._tokenizer.pad_token, self.limit], sort_keys=True).encode())
        return digest.hexdigest()

    def pooled(self, prompts: str | Sequence[str], *, truncate: bool = False) -> torch.Tensor:
        """Each prompt as one vector: [prompts, width], float32.

        It is the last hidden state (after the final layer norm) at the first end token: of clip_l as it is, of clip_g through its
        text projection, in this order one after the other. SDXL's pipelines condition on the clip_g part of this alone.
        Raises TextEncoderError for an empty prompt, one that the tokenizer does not know, or one beyond `limit` unless `truncate`.
        """
        import torch

        return torch.stack([pooled for pooled, _, _ in self._encoded(prompts, truncate)])

    def tokens(self, prompts: str | Sequence[str], *, truncate: bool = False) -> Tokens:
        """Each prompt's tokens as vectors, padded to `limit`: the last hidden states (after the final layer norm), clip_l's then clip_g's.

        Raises TextEncoderError as `pooled` does.
        """
        import torch

        _, states, masks = zip(*self._encoded(prompts, truncate), strict=True)
        return Tokens(torch.stack(states), torch.stack(masks))

    def _encoded(self, prompts: str | Sequence[str], truncate: bool) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Pooled embedding, hidden states and mask of each prompt."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise TextEncoderError(f"prompts must be one or more strings, got {prompts!r}")
        numbers = [self._numbers(prompt, truncate) for prompt in prompts]
        with _one_thread():
            return [self._encode(ids) for ids in numbers]

    def _numbers(self, prompt: str, truncate: bool) -> list[int]:
        """The tokens of a prompt, with the ones that begin and end it."""
        found = self._tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        ids: list[int] = found["input_ids"]
        spans, end = found["offset_mapping"], self._tokenizer.eos_token_id
        if len(ids) <= 2:
            raise TextEncoderError(f"the prompt {prompt!r} is empty; say what the merge is to be good at")
        if end in ids[1:-1]:
            start, stop = spans[ids.index(end)]
            raise TextEncoderError(f"the prompt {prompt!r} holds {prompt[start:stop]!r}, which the tokenizer does not know; take it out")
        if len(ids) <= self.limit:
            return ids
        if not truncate:
            kept = prompt[: spans[self.limit - 2][1]]
            raise TextEncoderError(
                f"the prompt {prompt!r} has {len(ids)} tokens with begin and end, and the text encoder reads {self.limit}: it would be cut "
                f"after {kept!r}, without {prompt[len(kept) :]!r}; shorten it, or pass truncate=True"
            )
        return [*ids[: self.limit - 1], end]

    def _encode(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        import torch

        padded = torch.tensor([ids + [self._tokenizer.pad_token_id] * (self.limit - len(ids))])
        pooled, states = [], []
        for model in self._models:
            hidden = getattr(model, "text_model", model)(input_ids=padded).last_hidden_state
            # pooled here, and not by the class: it looks for the end token that its config names, and older configs name another
            end = hidden[:, len(ids) - 1]
            pooled.append(model.text_projection(end) if hasattr(model, "text_projection") else end)
            states.append(hidden)
        result = torch.cat(pooled, -1)[0], torch.cat(states, -1)[0], torch.arange(self.limit) < len(ids)
        if not result[1].isfinite().all() or not result[0].isfinite().all():
            raise TextEncoderError(f"{self!r}: gives NaN or infinity; its weights are damaged")
        return result

    @cached_property
    def _configurations(self) -> tuple[tuple[CLIPTextConfig, Path | None], ...]:
        """How each encoder is built, and the folder that says so; names and shapes are judged here."""
        found = tuple(configuration(one, self._config_given) for one in self._stored)
        for one, (config, folder) in zip(self._stored, found, strict=True):
            _check(one, _built(one, config), folder)
        return found

    @cached_property
    def _models(self) -> tuple[CLIPTextModel | CLIPTextModelWithProjection, ...]:
        return tuple(_loaded(one, _built(one, config)) for one, (config, _) in zip(self._stored, self._configurations, strict=True))

    @cached_property
    def _tokenizer(self) -> CLIPTokenizer:
        tokenizer = load_tokenizer(self.tokenizer)
        for one, (config, _) in zip(self._stored, self._configurations, strict=True):
            if len(tokenizer) > config.vocab_size or config.eos_token_id not in (tokenizer.eos_token_id, _LEGACY_END):
                raise TextEncoderError(
                    f"{one.label} was trained with another tokenizer than {self.tokenizer}: it knows {config.vocab_size} tokens and "
                    f"ends with {config.eos_token_id}, the tokenizer has {len(tokenizer)} and ends with {tokenizer.eos_token_id}; "
                    "pass tokenizer= with the one that belongs to it"
                )
        return tokenizer


def _pooled_width(one: StoredEncoder, config: CLIPTextConfig) -> int:
    width: int = config.projection_dim if one.kind == "clip_g" else config.hidden_size
    return width


def _built(one: StoredEncoder, config: CLIPTextConfig) -> CLIPTextModel | CLIPTextModelWithProjection:
    """The real class, with shapes for weights; no random number is drawn."""
    import torch
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        return (CLIPTextModelWithProjection if one.kind == "clip_g" else CLIPTextModel)(config)


def _check(one: StoredEncoder, model: Any, config: Path | None) -> None:
    """Raises TextEncoderError unless the file's tensors are the model's, by name and shape."""
    shapes = {name.removeprefix("text_model."): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems: Mapping[str, list[str]] = {
        "lacks": [name for name in shapes if name not in one.keys],
        "has, beyond what a text encoder holds,": [key for name, key in one.keys.items() if name not in shapes],
        "has another shape than its config in": [
            f"{one.keys[name]} {list(one.shape(name))} for {list(shape)}"
            for name, shape in shapes.items()
            if name in one.keys and one.shape(name) != shape
        ],
    }
    if told := [f"{what} {few(names)}" for what, names in problems.items() if names]:
        class_name = type(model).__name__
        raise TextEncoderError(f"{one.label} is no {class_name} as {config or 'its width'} tells it: it {'; it '.join(told)}")


def _loaded(one: StoredEncoder, model: Any) -> Any:
    """The model with its weights, in float32, to be run and not trained."""
    import torch

    model.load_state_dict({name: one.read(name.removeprefix("text_model.")) for name in model.state_dict()}, assign=True)
    embeddings = getattr(model, "text_model", model).embeddings
    embeddings.position_ids = torch.arange(model.config.max_position_embeddings).expand(1, -1)  # in no file
    return model.requires_grad_(False).eval()


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(path).expanduser().absolute()


def _local_or_name(tokenizer: str | os.PathLike[str]) -> str:
    """A folder as an absolute path; a name on the hub as it is."""
    path = _absolute(tokenizer)
    return str(path) if path.is_dir() else str(tokenizer)


@contextmanager
def _one_thread() -> Iterator[None]:
    """No gradients, and one thread: sums that several share come out otherwise with another number of them."""
    import torch

    with _ALONE, torch.no_grad():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
