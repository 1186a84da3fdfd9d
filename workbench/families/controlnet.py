"""ControlNets of every model, and T2I adapters: they guide a model, and are not merged with one."""

from workbench.families.declaration import Family

FAMILY = Family(
    "ControlNet",
    told_by=(
        "control_model.", "controlnet_", "input_hint_block.", "zero_convs.", "control_layers.", "control_all_x_embedder.",
        "control_add_embedding.", "adapter.body.", "pos_embed_input.proj.",
    ),
    is_model=False,
    denoiser="unet",
)  # fmt: skip
