"""sd-mecha with its defaults and the options that mean what is asked: `k` is what is kept, `probability` what is dropped."""

from __future__ import annotations

import sys

import sd_mecha
from sd_mecha.extensions.builtin.merge_methods.linear import add_difference


def main(operation: str, out: str, *paths: str) -> None:
    first, *others = (sd_mecha.model(path) for path in paths)
    if operation == "average":
        recipe = sd_mecha.weighted_sum(first, *others, alpha=0.7)
    elif operation == "slerp":
        recipe = sd_mecha.slerp(first, *others, alpha=0.5)
    elif operation == "ties":
        # its add_difference_ties of 1.1.8 fails with these inputs, so its parts are put together here
        deltas = [sd_mecha.subtract(other, first) for other in others]
        recipe = add_difference(first, sd_mecha.ties_sum(*deltas, k=0.5, vote_sgn=True), alpha=1.0)
    else:
        recipe = sd_mecha.add_ties_with_dare(first, *others, probability=0.5, k=1.0, alpha=1.0, vote_sgn=True, apply_stock=True, seed=0)
    sd_mecha.merge(recipe, output=out)


if __name__ == "__main__":
    main(*sys.argv[1:])
