"""The names of a CLIP text encoder in OpenCLIP's layout and in transformers', which is diffusers' too."""

from __future__ import annotations

from workbench.families.correspondence import Form, Table

TEXT_MODEL = "text_model."  # where transformers before 5, and LDM files, have CLIP's tensors, but for these:
BESIDE = ("text_projection", "logit_scale")

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
    {"text_projection": Form.TRANSPOSED},
)
