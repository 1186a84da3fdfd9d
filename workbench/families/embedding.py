"""Embeddings, textual inversions: words for a text encoder, not merged with a model."""

from workbench.families.declaration import Family

FAMILY = Family("embedding", told_by=("emb_params", "string_to_param", "clip_l$", "clip_g$"), is_model=False)
