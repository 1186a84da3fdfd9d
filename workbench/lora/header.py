"""The metadata that readers of LoRA files look for: kohya's, PEFT's as diffusers packs it, and ModelSpec's. Names are in module_names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from workbench.checkpoint.names.structure import Structure
from workbench.checkpoint.views.low_rank import Factors, LowRank
from workbench.families.clip_names import TEXT_MODEL
from workbench.lora.module_names import Format

_DEV = ("guidance_in.",)  # LoRAs of Flux are called flux-1-dev, whatever they were trained on


def metadata(lora: LowRank, modules: Mapping[str, str], title: str, format: Format, alpha: float) -> dict[str, str]:
    """The header of a file with these `modules`: the LoRA's tensor -> the module's name in the file; all pairs have one `alpha`."""
    ranks = {module: entry.rank for key, module in modules.items() if isinstance(entry := lora.entries[key], Factors)}
    found = {"format": "pt"}
    if format == "kohya":
        found |= _kohya(lora.structure, set(ranks.values()), alpha)
    elif format == "peft":
        found |= _peft(ranks)
    if specification := lora.structure.family.specification(_DEV, lora.structure.prediction):
        found |= {
            "modelspec.sai_model_spec": "1.0.1",
            "modelspec.architecture": f"{specification.id}/lora",
            "modelspec.title": title,
        }
    return found


def _kohya(structure: Structure, ranks: set[int], alpha: float) -> dict[str, str]:
    """What kohya's tools and A1111 look for."""
    kohya = structure.family.kohya
    found = {
        "ss_network_module": kohya.module if kohya else "networks.lora",
        "ss_network_dim": str(*ranks) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": f"{alpha:g}",
    }
    return found | ({"ss_base_model_version": kohya.version} if kohya and kohya.version else {})


def _peft(ranks: Mapping[str, int]) -> dict[str, str]:
    """PEFT's config of each component, as diffusers packs them: alpha is the rank everywhere, for scales are in the factors.

    Of text encoders modules are told without `text_model.`, which transformers 5 has no more: PEFT matches the ends of names.
    """
    packed: dict[str, object] = {}
    for component in dict.fromkeys(module.partition(".")[0] for module in ranks):
        own = {
            module.partition(".")[2].removeprefix(TEXT_MODEL): rank for module, rank in ranks.items() if module.startswith(f"{component}.")
        }
        (usual, _), *_ = Counter(own.values()).most_common(1)
        start = "" if component.startswith("text_encoder") else "^"
        others = {f"{start}{module}": rank for module, rank in own.items() if rank != usual}
        config = {"r": usual, "lora_alpha": usual, "rank_pattern": others, "alpha_pattern": others, "target_modules": list(own)}
        packed |= {f"{component}.{name}": value for name, value in config.items()}
    return {"lora_adapter_metadata": json.dumps(packed, sort_keys=True)}
