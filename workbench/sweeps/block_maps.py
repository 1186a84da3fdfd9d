"""`block_map`: which block does it? Each block swapped alone and left out alone, drawn as a sweep. The result is in `block_map_result`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from workbench.checkpoint import Checkpoint
from workbench.errors import InputError
from workbench.merge import Merge
from workbench.merge.schedules import Depth
from workbench.operators import find
from workbench.render.scorers import Scorer
from workbench.sweeps.block_map_result import ALONE, BASE, LEFT_OUT, TUNED, BlockMap, measured
from workbench.sweeps.running import sweep

if TYPE_CHECKING:
    from workbench.render import Renderer


def block_map(
    base: Checkpoint,
    tuned: Checkpoint,
    *,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int] = (0, 1, 2, 3),
    scorer: Scorer | None = None,
    renderer: Renderer | None = None,
    executor: Executor | None = None,
    name: str = "block map",
    folder: str | Path = "out/sweeps",
    progress: bool = True,
    **settings: Any,
) -> BlockMap:
    """What each block of `tuned` does: drawn as `base` with this block alone, and as `tuned` with this block left out.

    Blocks are those of the denoiser, the modules beside them (`time_embed`, `out`), and the other components (`text_encoder`, `vae`) as
    wholes. `scorer` gives one number for each picture (as in `sweep`), and a block's effect is by how much it raises that: over `base`
    where it is alone, up to `tuned` where it is left out. Without a scorer the effect is how far the pictures move from those of `base`,
    or of `tuned`: root mean square of pixels, 0 (same) to 1.

    A block in which the models do not differ is not drawn: its effect is 0. Pictures are kept in `folder/name`, as a sweep keeps them;
    `executor` draws as that of `sweep` does, and `settings` are those of `sweep` (`steps`, `guidance`, ...). Both models are read once,
    tensor by tensor.

    Raises InputError for what are no two models that differ, SweepError where `base` or `tuned` cannot be drawn or the scorer does not
    give one number, and what `sweep` raises. What goes wrong with one block is said in its row.
    """
    for model in (base, tuned):
        if not isinstance(model, Checkpoint):
            raise InputError(f"block_map takes two checkpoints, base and tuned, got {model!r}; open a file with wb.open")
    pair = _Pair(base, tuned)
    differing, same = pair.places(progress)
    if not differing:
        raise InputError(f"block_map: {base.name!r} and {tuned.name!r} hold the same numbers, so no block does anything")
    over = [{"block": block, "way": ALONE} for block in (BASE, TUNED)]
    over += [{"block": block, "way": way} for block in differing for way in (ALONE, LEFT_OUT)]
    asked: dict[str, Any] = {"prompts": prompts, "seeds": seeds, "score": [] if scorer is None else scorer}
    asked |= {"renderer": renderer, "executor": executor, "name": name, "folder": folder, "progress": progress}
    drawn = sweep(pair.merged, over, **asked, **settings)
    return BlockMap((base.name, tuned.name), tuple(measured(drawn, scorer is not None)), tuple(same), drawn, pair.components)


@dataclass(frozen=True)
class _Pair:
    """Two models, and the merges of them that take some blocks from one and the rest from the other, to the bit."""

    base: Checkpoint
    tuned: Checkpoint

    def merged(self, block: str, way: str) -> Merge:
        """The base with this block of the tuned model; left out, the tuned model with this block of the base."""
        if block in (BASE, TUNED):
            return self._average([1.0, 0.0] if block == BASE else [0.0, 1.0])
        one, rest = ([0.0, 1.0], [1.0, 0.0]) if way == ALONE else ([1.0, 0.0], [0.0, 1.0])
        if block in self.components:
            return self._average(rest, [{"component": block, "take": self.tuned if way == ALONE else self.base}])
        return self._average({"blocks": {block: one, "default": rest}})

    def places(self, progress: bool) -> tuple[list[str], list[str]]:
        """The blocks in which the models differ, in depth order, and those in which they do not."""
        start, end, differs = self.merged(BASE, ALONE), self.merged(TUNED, ALONE), dict.fromkeys(self._named, False)
        for key in tqdm(start, desc="block map: compare", unit="tensor", delay=2, leave=False, disable=not progress):
            place = self._place(start, key)
            if not differs[place] and start.fingerprint(key) != end.fingerprint(key):
                differs[place] = not start.read(key).equal(end.read(key))
        return [name for name, one in differs.items() if one], [name for name, one in differs.items() if not one]

    def _average(self, weights: Any, rules: Sequence[Any] = ()) -> Merge:
        made: Merge = find("weighted_average")([self.base, self.tuned], weights=weights, rules=rules)
        return made

    def _place(self, model: Checkpoint, key: str) -> str:
        location = model.structure.location(key)
        return str(location) if location.block or location.module else model.structure.component(key)

    @cached_property
    def _named(self) -> list[str]:
        """All blocks, modules and components, in depth order."""
        start = self._average([1.0, 0.0])
        depth = Depth.of(map(start.structure.location, start))
        return list(dict.fromkeys([*depth.names, *depth.modules, *self.components]))

    @cached_property
    def components(self) -> tuple[str, ...]:
        """The components that have no blocks."""
        start = self._average([1.0, 0.0])
        locations = ((key, start.structure.location(key)) for key in start)
        return tuple(dict.fromkeys(start.structure.component(key) for key, one in locations if not (one.block or one.module)))
