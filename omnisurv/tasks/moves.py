"""Cubes with their label maps, moved and turned over: windows of a whole volume lie anywhere."""

import torch
from torch.nn import functional as F

from omnisurv.core import Batch
from omnisurv.core.volumes import cut, join
from omnisurv.data.regions import OUTSIDE
from omnisurv.shapes import Float, Int, Tensor
from omnisurv.task import Labelled
from omnisurv.tasks.labelmaps import Labels

REACH = 4
"""The part of a cube's side by which it is moved at most."""


def moved(part: Labelled, generator: torch.Generator) -> Labelled:
    """Return loaded patients whose volumes and label maps are moved and turned over, all alike.

    Each patient is moved along each axis by up to a quarter of the cube, and half of them are
    turned over, left to right. What comes in from beyond the cube is not there.
    """
    layout = part.batch.layout
    names = [name for name in layout.lengths if len(layout.grid(name)) == 3]
    volumes = torch.stack([join(part.batch.patches[n], layout.grid(n)) for n in names], dim=1)
    labels = part.target.values  # type: ignore[attr-defined]
    farthest = labels.shape[-1] // REACH
    seen, told = torch.empty_like(volumes), torch.empty_like(labels)
    for row in range(len(labels)):
        by = torch.randint(-farthest, farthest + 1, (3,), generator=generator).tolist()
        turned = [-3] if torch.rand((), generator=generator) < 0.5 else []
        seen[row] = _shift(volumes[row].flip(turned), by, torch.nan)
        told[row] = _shift(labels[row].flip(turned), by, OUTSIDE)
    cubes = {name: cut(seen[:, n], layout.grid(name)) for n, name in enumerate(names)}
    batch = Batch({**part.batch.patches, **cubes}, layout)
    return Labelled(batch, part.stratum, Labels(told))


def _shift(
    cube: Float[Tensor, "*m x y z"] | Int[Tensor, "x y z"], by: list[int], fill: float
) -> Tensor:
    """Return a cube moved by so many voxels along its last three axes."""
    pad = [side for step in reversed(by) for side in (step, -step)]
    return F.pad(cube, pad, value=fill)
