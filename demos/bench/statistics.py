"""What the figures say: medians, and how sure they are. Nothing but arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

WIDE = 0.05  # an interval wider than this part of its median decides nothing


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return (ordered[half] + ordered[~half]) / 2


def interval(values: Sequence[float], sure: float = 0.95) -> tuple[float, float] | None:
    """Return between which of the values the true median is, with this certainty.

    That is told by their order alone: each value is below the true median with probability one
    half, whatever they are spread like. None: they are too few to say.
    """
    ordered = sorted(values)
    count = len(ordered)
    outside = 0.0  # the probability that at most so many values are below it
    rank = -1  # the farthest from the ends that is sure enough
    while rank + 1 < count // 2:
        outside += comb(count, rank + 1) / 2**count
        if 2 * outside > 1 - sure:
            break
        rank += 1
    return None if rank < 0 else (ordered[rank], ordered[~rank])


def wide(values: Sequence[float]) -> bool:
    """Tell whether the interval is too wide, or there is none."""
    found = interval(values)
    return found is None or found[1] - found[0] > WIDE * median(values)
