"""What the modules in LoRA files are called in models: by the names of the model that is changed, or as well as the name alone tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from workbench.checkpoint.names.components import DENOISER
from workbench.checkpoint.names.lora_names import Named, Tensor
from workbench.checkpoint.names.structure import Structure
from workbench.families.clip_names import TEXT_MODEL

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
_WORDS = """
    _ adaLN_modulation adaln_modulation adaln_modulation_cross_attn adaln_modulation_mlp adaln_modulation_self_attn adaln_single
    add_embedding add_k_proj add_q_proj add_v_proj all_final_layer all_x_embedder aspect_ratio_embedder attention_norm1
    attention_norm2 attention_y_norm c_embedder c_fc1 c_fc2 c_proj cap_embedder caption_embedder caption_norm caption_projection
    class_embedding cond_seq_linear condition_embedder context_block context_embedder context_refiner conv_depth conv_in
    conv_inverted conv_norm_out conv_out conv_point conv_shortcut cross_attn depth_conv distilled_guidance_layer double_blocks
    double_layers double_stream_blocks double_stream_modulation_img double_stream_modulation_txt down_blocks emb_layers
    embed_tokens encoder_hid_proj feed_forward ff_context ff_i ff_t ffn_norm1 ffn_norm2 final_layer final_layer_norm final_linear
    guidance_embedder guidance_in image_embedder img_attn img_attn_k_norm img_attn_q_norm img_emb img_in img_mlp img_mod in_layer
    in_layers in_proj individual_token_refiner init_x_linear input_blocks input_embedder inverted_conv joint_blocks
    joint_transformer_blocks k_img k_norm k_proj k_rms_norm k_rms_norm_t kv_linear label_emb layer_norm1 layer_norm2
    layerwise_blocks linear_1 linear_2 linear_3 linear_in linear_out ln_k ln_q mid_block middle_block noise_refiner norm1_context
    norm_added_k norm_added_q norm_k norm_k_img norm_out norm_q out_layer out_layers out_proj out_projection output_blocks
    output_proj p_embedder patch_embed patch_embedding patchify_proj point_conv pooled_embedder pos_embed position_embedding
    proj_in proj_mlp proj_out q_linear q_norm q_proj q_rms_norm q_rms_norm_t refiner_blocks relative_attention_bias
    resolution_embedder self_attn self_attn_proj self_attn_qkv shared_experts single_blocks single_layers single_stream_blocks
    single_stream_modulation single_transformer_blocks skip_connection t_block t_embedder t_embedding_norm text_embedder
    text_embedding text_fusion text_model text_projection time_caption_embed time_emb_proj time_embed time_embedder time_embedding
    time_guidance_embed time_in time_mod_proj time_proj time_projection time_step_proj time_text_embed timestep_embedder
    to_add_out to_gate to_k to_k_t to_out to_out_t to_q to_q_t to_qkv_mlp_proj to_v to_v_t token_embedding token_refiner
    transformer_blocks txt_attn txt_attn_k_norm txt_attn_q_norm txt_in txt_mlp txt_mod txt_norm up_blocks v_img v_proj vector_in
    wi_0 wi_1 x_block x_embedder y_embedder y_proj
""".split()
_WORD = re.compile(rf"(?<![^_])(?:{'|'.join(sorted(_WORDS, key=len, reverse=True))})(?![^_])")


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

    def find(self, named: Named) -> str | None:
        """The name that a tensor has in the model, or would have in its other layout; None for one that it has not."""
        module = module_of(named.module)
        known = [*dict.fromkeys(component for component, _ in self._own)]
        name = module.name.removeprefix("text_model_").removeprefix(TEXT_MODEL).replace(".", "_")
        for table in (self._own, self._other):
            for component in module.components or known:
                for key in (name, f"{name}_0"):  # `to_out` is a list of modules, which older diffusers leaves out
                    if found := _tensor(table.get((component, key), {}), named.tensor):
                        return found
        return None

    @cached_property
    def _own(self) -> Mapping[tuple[str, str], dict[str, str]]:
        """Component, and flat name -> what is there of it: the end of its name, and the whole name."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        for (component, rest), key in self._structure.by_bare.items():
            _enter(found, component, rest, key)
        return found

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


def _tensor(ends: Mapping[str, str], tensor: Tensor) -> str | None:
    """The tensor of a module that is meant: its bias; its weight, which some norms call a scale; or, by its whole name, itself."""
    if tensor == "bias":
        return ends.get("bias")
    if tensor == "weight":
        return ends.get("weight") or ends.get("scale") or ends.get("")
    return ends.get("")
