"""What the modules in LoRA files are called in models: by the names of the model that is changed, or as well as the name alone tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from workbench.checkpoint.names.components import DENOISER
from workbench.checkpoint.names.lora_names import LoraTensor, Tensor
from workbench.checkpoint.names.structure import Structure
from workbench.families.clip_names import TEXT_MODEL
from workbench.families.correspondence import Form

_WRAPPER = "base_model.model."  # PEFT's, wherever it stands
# a program's own prefix of a component; kohya's tools write underscores for dots
_HEAD = re.compile(r"(?:lora|lycoris)_(unet|transformer|prior|te1|te2|te3|te)[_.]|lycoris_")
_ENCODERS = {"te": ("text_encoder",), "te1": ("text_encoder",), "te2": ("text_encoder_2",), "te3": ("text_encoder_3", "text_encoder_2")}
_PREFIXES = {
    "model.diffusion_model.": DENOISER, "diffusion_model.": DENOISER, "unet.": DENOISER, "transformer.": DENOISER, "net.": DENOISER,
    **{f"text_encoder{n}.": f"text_encoder{n}" for n in ("", "_2", "_3", "_4")},
}  # fmt: skip
_BUNDLED = re.compile(r"(text_encoders\.)?(clip_l|clip_g|t5xxl)\.")  # text encoders in ComfyUI's and other programs' names
_BUNDLES = {"clip_l": ("text_encoder",), "clip_g": ("text_encoder_2",), "t5xxl": ("text_encoder_3", "text_encoder_2")}
_PROCESSOR = re.compile(r"\.processor\.(\w+?)_lora(?=$)")  # of diffusers' older attention processors
# the words with an underscore of their own in the module names of all families, in both layouts: for names without a model to ask.
# HunyuanVideo's `img_attn_qkv` is not among them, for it is `img_attn.qkv` in Flux
_WORD = re.compile(
    r"""(?<![^_])(?:
    double_stream_modulation_img | double_stream_modulation_txt | adaln_modulation_cross_attn | adaln_modulation_self_attn |
    single_transformer_blocks | distilled_guidance_layer | individual_token_refiner | joint_transformer_blocks |
    single_stream_modulation | relative_attention_bias | aspect_ratio_embedder | adaln_modulation_mlp | double_stream_blocks |
    single_stream_blocks | resolution_embedder | time_guidance_embed | caption_projection | condition_embedder |
    position_embedding | time_caption_embed | transformer_blocks | guidance_embedder | timestep_embedder | adaLN_modulation |
    adaln_modulation | attention_y_norm | caption_embedder | context_embedder | encoder_hid_proj | final_layer_norm |
    layerwise_blocks | t_embedding_norm | all_final_layer | attention_norm1 | attention_norm2 | class_embedding |
    cond_seq_linear | context_refiner | img_attn_k_norm | img_attn_q_norm | patch_embedding | pooled_embedder |
    skip_connection | text_projection | time_projection | time_text_embed | to_qkv_mlp_proj | token_embedding |
    txt_attn_k_norm | txt_attn_q_norm | all_x_embedder | image_embedder | input_embedder | out_projection | refiner_blocks |
    self_attn_proj | shared_experts | text_embedding | time_embedding | time_step_proj | add_embedding | context_block |
    conv_inverted | conv_norm_out | conv_shortcut | double_blocks | double_layers | init_x_linear | inverted_conv |
    noise_refiner | norm1_context | output_blocks | patchify_proj | self_attn_qkv | single_blocks | single_layers |
    text_embedder | time_emb_proj | time_embedder | time_mod_proj | token_refiner | adaln_single | cap_embedder | caption_norm
    | embed_tokens | feed_forward | final_linear | input_blocks | joint_blocks | k_rms_norm_t | middle_block | norm_added_k |
    norm_added_q | q_rms_norm_t | down_blocks | final_layer | guidance_in | layer_norm1 | layer_norm2 | output_proj |
    patch_embed | text_fusion | add_k_proj | add_q_proj | add_v_proj | c_embedder | conv_depth | conv_point | cross_attn |
    depth_conv | emb_layers | ff_context | k_rms_norm | linear_out | norm_k_img | out_layers | p_embedder | point_conv |
    q_rms_norm | t_embedder | text_model | time_embed | to_add_out | x_embedder | y_embedder | ffn_norm1 | ffn_norm2 |
    in_layers | kv_linear | label_emb | linear_in | mid_block | out_layer | pos_embed | self_attn | time_proj | up_blocks |
    vector_in | conv_out | img_attn | in_layer | linear_1 | linear_2 | linear_3 | norm_out | out_proj | proj_mlp | proj_out |
    q_linear | to_out_t | txt_attn | txt_norm | conv_in | img_emb | img_mlp | img_mod | in_proj | proj_in | t_block | time_in
    | to_gate | txt_mlp | txt_mod | x_block | c_proj | img_in | k_norm | k_proj | norm_k | norm_q | q_norm | q_proj | to_k_t |
    to_out | to_q_t | to_v_t | txt_in | v_proj | y_proj | c_fc1 | c_fc2 | k_img | v_img | ff_i | ff_t | ln_k | ln_q | to_k |
    to_q | to_v | wi_0 | wi_1 | _
    )(?![^_])""",
    re.VERBOSE,
)


# whose names are read, for the documents: an example of each
EXAMPLES = (
    ("kohya, sd-scripts, A1111, Forge", "lora_unet_down_blocks_0_attentions_0_proj_in"),
    ("kohya, text encoders", "lora_te1_text_model_encoder_layers_0_mlp_fc1"),
    ("LyCORIS", "lycoris_down_blocks_0_attentions_0_proj_in"),
    ("PEFT, diffusers", "unet.down_blocks.0.attentions.0.proj_in"),
    ("PEFT's wrapper, wherever it stands", "base_model.model.unet.conv_in"),
    ("older diffusers", "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora"),
    ("ComfyUI, ai-toolkit", "diffusion_model.double_blocks.0.img_attn.qkv"),
    ("ComfyUI, text encoders", "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1"),
    ("OneTrainer", "lora_transformer_single_transformer_blocks_0_attn_to_q"),
)


# how the name of a tensor ends that a part means, the likelier ones first: some norms call their weight a scale
_ENDS: dict[Tensor, tuple[tuple[str, ...], ...]] = {"weight": (("weight", "scale"), ("",)), "bias": (("bias",),), "": (("",),)}


@dataclass(frozen=True)
class Module:
    """A module as a file names it: the components it may be of, in order; none where nothing tells. `flat`: underscores may be dots."""

    components: tuple[str, ...]
    name: str
    flat: bool
    prefix: str  # as it is written, or would be for its component

    @property
    def usual(self) -> str:
        """Its name with a prefix, as well as the name alone tells it."""
        if not self.flat:
            return self.prefix + self.name
        return self.prefix + _WORD.sub(lambda word: word[0].replace("_", "\0"), self.name).replace("_", ".").replace("\0", "_")


def module_of(written: str) -> Module:
    """The module that a name in a file means, in whichever dialect it is."""
    name = written.replace(_WRAPPER, "")
    if head := _HEAD.match(name):
        rest = name[head.end() :]
        encoder = head[1] if head[1] in _ENCODERS else None
        if encoder or rest.startswith("text_model_"):
            components = _ENCODERS[encoder or "te"]
            return Module(components, rest, "." not in rest, f"{components[-1]}.")
        return Module((DENOISER,), rest, "." not in rest, "diffusion_model.")
    name = _PROCESSOR.sub(lambda found: f".{'to_out.0' if found[1] == 'to_out' else found[1]}", name)
    if bundle := _BUNDLED.match(name):
        components = _BUNDLES[bundle[2]]
        return Module(components, name[bundle.end() :].removeprefix("transformer."), False, f"{components[-1]}.")
    for prefix, component in _PREFIXES.items():
        if name.startswith(prefix) and not name.startswith("transformer.resblocks."):
            return Module((component,), name[len(prefix) :], False, prefix)
    return Module((), name, "." not in name and "_" in name, "")


class ModuleNames:
    """The modules of a model, found by what LoRA files call them: names in either of its layouts, with dots or underscores."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure

    def find(self, named: LoraTensor) -> str | None:
        """The name that a tensor has in the model, or would have in its other layout; None for one that it has not."""
        module = module_of(named.module)
        name = module.name.removeprefix("text_model_").removeprefix(TEXT_MODEL).replace(".", "_")
        # a module has a weight; what is a bare parameter in one layout may be the transposed weight of a module in the other
        for ends in _ENDS[named.tensor]:
            for table in (self._own, self._other):
                for component in module.components or self._components:
                    for key in (name, f"{name}_0"):  # `to_out` is a list of modules, which older diffusers leaves out
                        there = table.get((component, key), {})
                        if found := next((there[end] for end in ends if end in there), None):
                            return found
        return None

    @cached_property
    def _components(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(component for component, _ in self._own))

    @cached_property
    def _own(self) -> Mapping[tuple[str, str], dict[str, str]]:
        """Component, and flat name -> what is there of it: the end of its name, and the whole name."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        for (component, rest), key in self._structure.by_bare.items():
            if not self._lies_otherwise(component, rest):
                _enter(found, component, rest, key)
        return found

    def _lies_otherwise(self, component: str, rest: str) -> bool:
        """Whether it is OpenCLIP's projection, the transpose of the matrix that LoRAs change."""
        one = self._structure.correspondence(component, rest) if component.startswith("text_encoder") else None
        return one is not None and one.form is Form.TRANSPOSED and rest == one.original

    @cached_property
    def _other(self) -> Mapping[tuple[str, str], dict[str, str]]:
        """The same in the other layout; of a transformer diffusers may have to be asked for it."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        structure = self._structure
        for (component, _), key in structure.by_bare.items():
            for rest in structure.spelled_otherwise(key):
                prefix = f"{structure.denoiser}." if component == DENOISER else f"{component}."
                _enter(found, component, rest, prefix + rest)
        return found


def _enter(table: dict[tuple[str, str], dict[str, str]], component: str, rest: str, name: str) -> None:
    module, dot, end = rest.rpartition(".")
    if component != "other":
        table.setdefault((component, rest.replace(".", "_")), {}).setdefault("", name)
        if dot:
            table.setdefault((component, module.replace(".", "_")), {}).setdefault(end, name)
