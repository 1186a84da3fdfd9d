"""What kohya's trainers say, `ss_*`, and ModelSpec's `modelspec.merged_from`: names and hashes of models, without how much of each."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.analysis.provenance.account import ROOT, Account, Link, Member, described
from workbench.checkpoint.files.catalogue import Mark

_TRAINING = {"trained on": ("ss_sd_model_name", "ss_new_sd_model_hash", "ss_sd_model_hash"),
             "VAE in training": ("ss_vae_name", "ss_new_vae_hash", "ss_vae_hash")}  # fmt: skip
_SETTINGS = ("ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_base_model_version")
_MERGED = "modelspec.merged_from"
_MOST = 10_000  # names
_UNSAID = ("", "None")  # as kohya writes what it was not told


def training(metadata: Mapping[str, str]) -> Account | None:
    """What a model was trained on; None where nothing is said of it."""
    made = {}
    for role, fields in _TRAINING.items():
        mark = Mark.of(*(value if (value := metadata.get(field, "")) not in _UNSAID else "" for field in fields))
        if mark.name or mark.hash:
            made[role] = Member(mark)
    if not made:
        return None
    method = described((name.removeprefix("ss_"), metadata.get(name)) for name in _SETTINGS if metadata.get(name) not in _UNSAID)
    return Account(
        "kohya's ss_sd_model_*", made | {ROOT: Member(method=f"trained({method})", links=tuple(Link(role, role) for role in made))}
    )


def merged_from(metadata: Mapping[str, str]) -> Account | None:
    """The names of what a model was merged from; None where nothing is said of it."""
    names = [name.strip() for name in metadata.get(_MERGED, "").split(",", _MOST)][:_MOST]
    made = {name: Member(Mark.of(name)) for name in dict.fromkeys(names) if name}
    if not made:
        return None
    root = Member(method="merged, how is not said", links=tuple(Link(name, "merged") for name in made))
    return Account(_MERGED, made | {ROOT: root})
