"""The training settings of every stage of the family; the committed files are what the defaults make."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Settings:
    """One `Stage` per kind of part; every variant uses `variant`, with a seed of its own."""

    vae: Stage = Stage(steps=2600, batch=32, learning_rate=1.5e-3, pictures=18432, seed=1)
    decoder: Stage = Stage(steps=2000, batch=32, learning_rate=8e-4, pictures=18432, seed=6)
    clip: Stage = Stage(steps=3000, batch=128, learning_rate=1e-3, pictures=28800, seed=2)
    base: Stage = Stage(steps=10000, batch=64, learning_rate=1e-3, pictures=24000, seed=3)
    variant: Stage = Stage(steps=700, batch=64, learning_rate=3e-4, pictures=4800, seed=4, warmup=50)
    lora: Stage = Stage(steps=700, batch=64, learning_rate=2e-3, pictures=4800, seed=5, warmup=50)
    lora_rank: int = 8

    def shortened(self, steps: int, pictures: int) -> Settings:
        """The same settings with so few steps and pictures that a test can run them."""
        short = {
            name: replace(stage, steps=steps, pictures=pictures, batch=min(stage.batch, pictures), warmup=1)
            for name, stage in vars(self).items()
            if isinstance(stage, Stage)
        }
        return replace(self, **short)
