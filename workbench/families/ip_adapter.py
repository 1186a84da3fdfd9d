"""IP-Adapters: they bring pictures into prompts, and are not merged with a model."""

from workbench.families.declaration import Family

FAMILY = Family(
    "IP-Adapter",
    told_by=("ip_adapter.", "image_proj.", "image_proj_model.", "encoder_hid_proj.image_projection_layers."),
    is_model=False,
)
