"""How well a region was outlined: Dice and Hausdorff distance of one patient, empty regions ruled.

What to say of a region that is not there is a convention, and means over cases hang on it:

========  =======================  ====================  ====================
rule      neither has the region   truth has none        nothing was found
========  =======================  ====================  ====================
brats     Dice 1, HD95 0           Dice 0, HD95 373.13   Dice 0, HD95 373.13
nan       NaN, NaN                 NaN, NaN              Dice 0, HD95 NaN
========  =======================  ====================  ====================

``brats`` is the rule of the challenge's portal up to 2021, where 373.13 mm is the diagonal of its
volumes; ``nan`` leaves cases without the region out, as MONAI's means do (BM-MAE).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, distance_transform_edt

Empty = Literal["brats", "nan"]
Mask = npt.NDArray[np.bool_]

LOST = 373.13
"""Millimetres: the diagonal of a volume of BraTS, 240 × 240 × 155."""


def dice(found: Mask, truth: Mask, empty: Empty = "brats") -> float:
    """Return twice the voxels in both over the voxels in each (Dice 1945).

    Args:
        found: True in the region, as predicted.
        truth: the same, as it is.
        empty: what to say where there is no such region.
    """
    if empty == "nan" and not truth.any():
        return np.nan
    voxels = int(found.sum()) + int(truth.sum())
    return 2.0 * int((found & truth).sum()) / voxels if voxels else 1.0


def hd95(found: Mask, truth: Mask, spacing: Sequence[float], empty: Empty = "brats") -> float:
    """Return the 95th percentile Hausdorff distance in mm, the larger of the two directions.

    It is between the outermost voxels of each, as MONAI has it. Others take the percentile of
    both directions together, which is a little less.

    Args:
        found: (x, y, z) True in the region, as predicted.
        truth: the same, as it is.
        spacing: sides of a voxel in mm.
        empty: what to say where there is no such region.
    """
    if not found.any() or not truth.any():
        if empty == "nan":
            return np.nan
        return LOST if found.any() or truth.any() else 0.0
    box = _around(found | truth)
    one, other = (_surface(mask[box]) for mask in (found, truth))
    return max(
        float(np.percentile(distance_transform_edt(~b, sampling=spacing)[a], 95))
        for a, b in ((one, other), (other, one))
    )


def _surface(mask: Mask) -> Mask:
    """Return the voxels of which a neighbour by a face is outside."""
    return np.asarray(mask & ~binary_erosion(mask))


def _around(mask: Mask) -> tuple[slice, ...]:
    """Return the box around all that is True, one voxel wider."""
    places = np.nonzero(mask)
    return tuple(slice(max(int(p.min()) - 1, 0), int(p.max()) + 2) for p in places)
