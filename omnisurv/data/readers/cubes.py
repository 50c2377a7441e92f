"""Where a cube lies in a volume, and a volume on another grid: plain counting of voxels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisurv.data.readers.nifti import Grid

Place = tuple[slice, ...]


def centred(shape: Sequence[int], size: int) -> list[int]:
    """Return where a cube starts around the middle of a volume (MONAI's ``CenterSpatialCrop``)."""
    return [side // 2 - size // 2 if side >= size else (side - size) // 2 for side in shape]


def start_around(shape: Sequence[int], centre: NDArray[np.float64], size: int) -> list[int]:
    """Return where a cube starts: inside the volume where it fits, else around all of it.

    ``centre`` is in voxels, whose edges are whole numbers.
    """
    starts = []
    for side, place in zip(shape, centre, strict=True):
        start = int(np.ceil(place - size / 2 - 0.5))
        spare = side - size
        starts.append(min(max(start, 0), spare) if spare >= 0 else spare // 2)
    return starts


def overlap(shape: Sequence[int], start: Sequence[int], size: int) -> tuple[Place, Place]:
    """Return the part of the volume that the cube covers, and the part of the cube it is."""
    ranges = [
        (max(first, 0), min(first + size, side)) for first, side in zip(start, shape, strict=True)
    ]
    there = tuple(slice(low, high) for low, high in ranges)
    here = tuple(slice(a - s, b - s) for (a, b), s in zip(ranges, start, strict=True))
    return there, here


def cut(data: NDArray[Any], start: Sequence[int], size: int, outside: float) -> NDArray[Any]:
    """Return the cube that starts there; ``outside`` stands where it reaches beyond the volume.

    It is float32 where ``outside`` is NaN, else of the volume's dtype.
    """
    cube = np.full((size,) * 3, outside, np.float32 if np.isnan(outside) else data.dtype)
    there, here = overlap(data.shape, start, size)
    cube[here] = data[there]
    return cube


def nearest(labels: NDArray[Any], grid: Grid, wanted: Grid) -> NDArray[Any]:
    """Return labels on another grid, each voxel as the nearest one; 0 beyond all of them."""
    from scipy.ndimage import affine_transform

    matrix = np.linalg.inv(grid.affine) @ wanted.affine
    found = affine_transform(
        labels, matrix, output_shape=wanted.shape, order=0, mode="grid-constant", cval=0
    )
    return np.asarray(found)
