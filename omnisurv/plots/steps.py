"""Axial slices of volumes as small pictures, one for each step of a slider."""

import io
from collections.abc import Sequence

import numpy as np

from omnisurv.plots.pictures import RANGE, Cube, Volume, cut

PIXELS = 2_000_000
"""Pixels of all slices together, so that a page stays below 3 MB."""
GREYS = 64


def axial_steps(volumes: Sequence[Volume]) -> list[list[bytes]]:
    """Return PNGs of each volume's slices, from the feet up, as many of each.

    Grey runs as in ``volume_slices``; what lies outside the scan is transparent. Of large volumes
    only every so many slices are drawn, the lowest and the highest always.
    """
    depth = max(volume.cube.shape[2] for volume in volumes)
    pixels = sum(volume.cube.shape[0] * volume.cube.shape[1] for volume in volumes)
    shares = np.linspace(0, 1, max(2, min(depth, PIXELS // pixels)))
    return [
        [_png(cut(volume.cube, "axial", at)) for at in _places(volume, shares)]
        for volume in volumes
    ]


def _places(volume: Volume, shares: Sequence[float] | np.ndarray) -> list[int]:
    return [int(at) for at in np.rint(np.asarray(shares) * (volume.cube.shape[2] - 1))]


def _png(piece: Cube) -> bytes:
    from PIL import Image

    share = (np.clip(piece, -RANGE, RANGE) + RANGE) / (2 * RANGE)
    grey = 1 + 4 * np.rint(np.nan_to_num(share) * (GREYS - 1))
    grey = np.where(np.isfinite(piece), grey, 0).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, format="PNG", optimize=True, transparency=0)
    return stream.getvalue()
