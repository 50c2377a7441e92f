"""Volumes cut into cubes and put together, in the order in which pictures are tokenised."""

import math

from omnisurv.shapes import Float, Tensor


def cut(volumes: Float[Tensor, "b x y z"], grid: tuple[int, ...]) -> Float[Tensor, "b l p"]:
    """Return the cubes of each volume, as many along each axis as ``grid`` says."""
    sides = [
        part
        for count, size in zip(grid, volumes.shape[1:], strict=True)
        for part in (count, size // count)
    ]
    split = volumes.reshape(len(volumes), *sides).permute(0, 1, 3, 5, 2, 4, 6)
    return split.reshape(len(volumes), math.prod(grid), -1)


def join(patches: Float[Tensor, "b l p"], grid: tuple[int, ...]) -> Float[Tensor, "b x y z"]:
    """Return the volumes of which these are the cubes, the inverse of ``cut``."""
    side = round(patches.shape[2] ** (1 / 3))
    split = patches.reshape(len(patches), *grid, side, side, side).permute(0, 1, 4, 2, 5, 3, 6)
    return split.reshape(len(patches), *(count * side for count in grid))
