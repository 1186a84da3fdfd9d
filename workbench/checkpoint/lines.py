"""What one tensor of an original layout (LDM, BFL, OpenCLIP) is in diffusers' layout, by name. Which model has which is in `layouts`."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class Form(enum.Enum):
    """How the numbers of an original tensor lie, beside how diffusers has them."""

    SAME = "same"
    TURNED = "turned"  # transposed
    CONVOLUTION = "convolution"  # 1x1, where diffusers has a matrix


@dataclass(frozen=True)
class Strand:
    """A tensor in diffusers, or the `at`-th of equal parts of one, as rows of an original tensor: its `share` beside its neighbours'."""

    name: str
    share: int = 1
    at: int = 0


@dataclass(frozen=True)
class Line:
    """A tensor of an original layout, and the strands that its rows are, from the first row to the last."""

    original: str
    strands: tuple[Strand, ...]
    form: Form = Form.SAME

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors in diffusers, each once."""
        return tuple(dict.fromkeys(strand.name for strand in self.strands))

    @property
    def shares(self) -> int:
        return sum(strand.share for strand in self.strands)

    def parts(self, name: str) -> int:
        """In how many equal parts a tensor of diffusers is found in the original."""
        return sum(strand.name == name for strand in self.strands)


class Table:
    """Lines by template, found by the name of a tensor in either layout.

    A template maps the original's name to its strands, joined by ` + `. `#` stands for any number, `*` at the end for `weight` and
    for `bias`; `4:name` has four shares of the rows, and `name[1]` is the second of the parts of `name`.
    """

    def __init__(self, templates: Mapping[str, str], forms: Mapping[str, Form] | None = None) -> None:
        self._lines: dict[str, list[tuple[re.Pattern[str], Line]]] = {}
        for original, told in templates.items():
            for end in ("weight", "bias") if original.endswith("*") else ("",):
                strands = tuple(_strand(one.replace("*", end)) for one in told.split(" + "))
                line = Line(original.replace("*", end), strands, (forms or {}).get(original, Form.SAME))
                for name in (line.original, *line.names):
                    pattern = re.compile(re.escape(name).replace(r"\#", r"(\d+)"))
                    self._lines.setdefault(_DIGITS.sub("#", name), []).append((pattern, line))

    def line(self, name: str) -> Line | None:
        """The line that a tensor belongs to, by its name in either layout; None where both have the same name, or neither has it."""
        for pattern, line in self._lines.get(_DIGITS.sub("#", name), ()):
            if found := pattern.fullmatch(name):
                return _filled(line, found.groups())
        return None


_DIGITS = re.compile(r"(?<=\.)\d+(?=\.)")
_STRAND = re.compile(r"(?:(\d+):)?([^\[]+)(?:\[(\d+)\])?")


def _strand(told: str) -> Strand:
    share, name, at = _STRAND.fullmatch(told).groups()  # type: ignore[union-attr]
    return Strand(name, int(share or 1), int(at or 0))


def _filled(line: Line, numbers: Iterable[str]) -> Line:
    def fill(name: str) -> str:
        for number in numbers:
            name = name.replace("#", number, 1)
        return name

    return Line(fill(line.original), tuple(Strand(fill(one.name), one.share, one.at) for one in line.strands), line.form)


def _double(stream: str, query: str, norm: str, names: tuple[str, str, str]) -> dict[str, str]:
    """One stream, pictures or text, of Flux's double blocks."""
    ours, theirs = f"double_blocks.#.{stream}", "transformer_blocks.#"
    out, modulation, feed_forward = names
    return {
        f"{ours}_attn.qkv.*": " + ".join(f"{theirs}.attn.{query.format(one)}.*" for one in "qkv"),
        f"{ours}_attn.norm.query_norm.scale": f"{theirs}.attn.{norm.format('q')}.weight",
        f"{ours}_attn.norm.key_norm.scale": f"{theirs}.attn.{norm.format('k')}.weight",
        f"{ours}_attn.proj.*": f"{theirs}.attn.{out}.*",
        f"{ours}_mod.lin.*": f"{theirs}.{modulation}.linear.*",
        f"{ours}_mlp.0.*": f"{theirs}.{feed_forward}.net.0.proj.*",
        f"{ours}_mlp.2.*": f"{theirs}.{feed_forward}.net.2.*",
    }


_SINGLE = "single_transformer_blocks.#"
_EMBEDDERS = {"time": "timestep", "vector": "text", "guidance": "guidance"}
# the hidden part of a single block's linear1 is four times as wide as the model, in every Flux (diffusers' mlp_ratio is no option)
FLUX = Table(
    {
        "img_in.*": "x_embedder.*",
        "txt_in.*": "context_embedder.*",
        **{
            f"{ours}_in.{side}_layer.*": f"time_text_embed.{theirs}_embedder.linear_{number}.*"
            for ours, theirs in _EMBEDDERS.items()
            for number, side in enumerate(("in", "out"), 1)
        },
        **_double("img", "to_{}", "norm_{}", ("to_out.0", "norm1", "ff")),
        **_double("txt", "add_{}_proj", "norm_added_{}", ("to_add_out", "norm1_context", "ff_context")),
        "single_blocks.#.linear1.*": " + ".join([*(f"{_SINGLE}.attn.to_{one}.*" for one in "qkv"), f"4:{_SINGLE}.proj_mlp.*"]),
        "single_blocks.#.linear2.*": f"{_SINGLE}.proj_out.*",
        "single_blocks.#.norm.query_norm.scale": f"{_SINGLE}.attn.norm_q.weight",
        "single_blocks.#.norm.key_norm.scale": f"{_SINGLE}.attn.norm_k.weight",
        "single_blocks.#.modulation.lin.*": f"{_SINGLE}.norm.linear.*",
        "final_layer.linear.*": "proj_out.*",
        "final_layer.adaLN_modulation.1.*": "norm_out.linear.*[1] + norm_out.linear.*[0]",  # shift, scale; diffusers: scale, shift
    }
)

_RESBLOCK, _LAYER = "transformer.resblocks.#", "encoder.layers.#"
# the names without OpenCLIP's `model.` and without transformers' `text_model.`
OPEN_CLIP = Table(
    {
        "positional_embedding": "embeddings.position_embedding.weight",
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "ln_final.*": "final_layer_norm.*",
        "text_projection": "text_projection.weight",
        **{
            f"{_RESBLOCK}.attn.in_proj_{end}": " + ".join(f"{_LAYER}.self_attn.{one}_proj.{end}" for one in "qkv")
            for end in ("weight", "bias")
        },
        f"{_RESBLOCK}.attn.out_proj.*": f"{_LAYER}.self_attn.out_proj.*",
        f"{_RESBLOCK}.ln_1.*": f"{_LAYER}.layer_norm1.*",
        f"{_RESBLOCK}.ln_2.*": f"{_LAYER}.layer_norm2.*",
        f"{_RESBLOCK}.mlp.c_fc.*": f"{_LAYER}.mlp.fc1.*",
        f"{_RESBLOCK}.mlp.c_proj.*": f"{_LAYER}.mlp.fc2.*",
    },
    {"text_projection": Form.TURNED},
)
