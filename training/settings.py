"""The training settings of every stage of the family; the committed files are what the defaults make."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stage:
    """How one part is trained."""

    steps: int
    batch: int
    learning_rate: float
    pictures: int  # drawn once, before the first step
    seed: int
    warmup: int = 100
    cosine_over: int | None = None  # the steps in which the cosine would reach zero; `steps`, unless given
    cooldown: int = 0  # so many steps at the end fall to zero in a straight line as well

    def rate_at(self, step: int) -> float:
        """The share of the learning rate that is used at a step: warm-up, then a cosine, then the cool-down."""
        period = (self.cosine_over or self.steps) - self.warmup
        if step < self.warmup:
            return step / self.warmup
        wave = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - self.warmup) / max(1, period))))
        return wave * (min(1.0, (self.steps - step) / self.cooldown) if self.cooldown else 1.0)


@dataclass(frozen=True)
class Settings:
    """One `Stage` per kind of part; `style` is outline, stripes and pastel, `shape` is heart and moon."""

    vae: Stage = Stage(steps=2600, batch=32, learning_rate=1.5e-3, pictures=18432, seed=1)
    decoder: Stage = Stage(steps=1500, batch=32, learning_rate=8e-4, pictures=18432, seed=6, cosine_over=2000, cooldown=500)
    clip: Stage = Stage(steps=3000, batch=128, learning_rate=1e-3, pictures=28800, seed=2)
    base: Stage = Stage(steps=7500, batch=64, learning_rate=1e-3, pictures=24000, seed=3, cosine_over=10000, cooldown=1500)
    style: Stage = Stage(steps=1400, batch=64, learning_rate=5e-4, pictures=2400, seed=4, warmup=50)
    shape: Stage = Stage(steps=700, batch=64, learning_rate=3e-4, pictures=2400, seed=4, warmup=50)
    lora: Stage = Stage(steps=700, batch=64, learning_rate=2e-3, pictures=2400, seed=5, warmup=50)
    lora_rank: int = 8
    flux: Stage = Stage(steps=7000, batch=64, learning_rate=1.5e-3, pictures=24000, seed=11, cosine_over=10000, cooldown=1500)
    flux_style: Stage = Stage(steps=900, batch=64, learning_rate=5e-4, pictures=6000, seed=12, warmup=50)
    krea: Stage = Stage(steps=800, batch=64, learning_rate=5e-4, pictures=6000, seed=13, warmup=50)
    schnell: Stage = Stage(steps=1000, batch=64, learning_rate=5e-4, pictures=3072, seed=14, warmup=50)
    sdxl: Stage = Stage(steps=6000, batch=64, learning_rate=1.5e-3, pictures=24000, seed=21, cosine_over=10000, cooldown=1500)
    sdxl_shape: Stage = Stage(steps=1000, batch=64, learning_rate=4e-4, pictures=2400, seed=22, warmup=50)
    sdxl_v: Stage = Stage(steps=1500, batch=64, learning_rate=8e-4, pictures=12000, seed=23, warmup=50)
    z_image: Stage = Stage(steps=5500, batch=64, learning_rate=2e-3, pictures=24000, seed=21, cosine_over=9000, cooldown=1500)
    z_image_lora: Stage = Stage(steps=1500, batch=64, learning_rate=2e-3, pictures=2400, seed=22, warmup=50)
    z_image_lora_rank: int = 8

    def shortened(self, steps: int, pictures: int) -> Settings:
        """The same settings with so few steps and pictures that a test can run them."""
        short = {
            name: replace(stage, steps=steps, pictures=pictures, batch=min(stage.batch, pictures), warmup=1, cooldown=0)
            for name, stage in vars(self).items()
            if isinstance(stage, Stage)
        }
        return replace(self, **short)
