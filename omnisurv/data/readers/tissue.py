"""Where on a slide there is tissue to look at, and how much of a tile is stained."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappush, heapreplace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SATURATED, LIGHT = 130, 170
"""A pixel is stained if its saturation is above and its value below (of 255; impuTMAE, DRIM)."""
SHARP = 30.0
"""Least variance of the Laplacian of a sharp tile (8-bit grey). H&E in focus has 500 and more at
0.5 µm/px, out of focus by one pixel (sd of a Gaussian) about 100, by two 10 to 50."""
FAINT, CLEAR = 15, 60
"""Bounds of the saturation (of 255) that parts tissue from glass: without them, Otsu's threshold
parts noise on an empty slide, and pale from deep tissue on one that is covered."""
VOTE = 7
"""Side of the median filter, in pixels of the overview."""


class Tissue(NamedTuple):
    """Tissue and ink on an overview of a slide, both (height, width)."""

    tissue: Mask
    ink: Mask


class Cells(NamedTuple):
    """Squares that tiles are taken from: their numbers along x and y, row by row."""

    columns: NDArray[np.int64]
    rows: NDArray[np.int64]


def find_tissue(overview: Pixels) -> Tissue:
    """Return where an overview (height, width, 3) shows tissue, and where a pen has marked it."""
    from PIL import Image
    from scipy.ndimage import maximum_filter, uniform_filter
    from skimage.filters import threshold_otsu

    hue, saturation, value = np.asarray(Image.fromarray(overview).convert("HSV")).transpose(2, 0, 1)
    ink = _looks_like_ink(hue, saturation, value)
    ink = uniform_filter(ink.astype(np.float32), 3) > 0.5  # specks are no pen
    ink = maximum_filter(ink, 5)  # its border is a mixture
    clean = saturation[~ink]
    if not clean.size:
        return Tissue(np.zeros_like(ink), ink)
    threshold = np.clip(threshold_otsu(clean), FAINT, CLEAR)
    # Median filter and threshold commute: the median is above it where most pixels are.
    above = uniform_filter((saturation > threshold).astype(np.float32), VOTE) > 0.5
    return Tissue(above & ~ink, ink)


def _looks_like_ink(hue: Pixels, saturation: Pixels, value: Pixels) -> Mask:
    """Return green, blue and black; haematoxylin and eosin are violet to red.

    Red ink has the colour of blood and cannot be told by it.
    """
    green = (hue >= _hue(65)) & (hue < _hue(170)) & (saturation > round(0.25 * 255))
    blue = (hue >= _hue(170)) & (hue < _hue(245)) & (saturation > round(0.5 * 255))
    # Dark tissue keeps its hue, black ink has none.
    black = (value < 60) & (saturation.astype(np.uint16) * value < 25 * 255)
    return green | blue | black


def _hue(degrees: float) -> int:
    return round(degrees * 255 / 360)


def find_cells(found: Tissue, side: float, columns: int, rows: int) -> Cells:
    """Return the cells that are at least half tissue and bear no ink.

    Args:
        found: tissue and ink on the overview.
        side: of a cell in pixels of the overview; need not be whole.
        columns: cells along x.
        rows: cells along y.
    """
    height, width = found.tissue.shape
    # From the cell's number each time: adding up a rounded side drifts off the slide's grid.
    across = np.clip(np.rint(np.arange(columns + 1) * side).astype(int), 0, width)
    down = np.clip(np.rint(np.arange(rows + 1) * side).astype(int), 0, height)
    area = np.diff(down)[:, None] * np.diff(across)[None]
    tissue, ink = _count(found.tissue, across, down), _count(found.ink, across, down)
    y, x = np.nonzero((tissue > 0) & (2 * tissue >= area) & (ink == 0))
    return Cells(x, y)


def _count(mask: Mask, across: NDArray[Any], down: NDArray[Any]) -> NDArray[np.int32]:
    """Return how many pixels are set between neighbouring edges (rows, columns)."""
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    np.cumsum(mask, axis=0, out=total[1:, 1:])
    np.cumsum(total, axis=1, out=total)
    return np.diff(np.diff(total[np.ix_(down, across)], axis=0), axis=1)


def draw_cells(cells: Cells, most: int, generator: np.random.Generator) -> Cells:
    """Return at most so many cells, drawn at random, row by row."""
    if len(cells.rows) <= most:
        return cells
    drawn = generator.choice(len(cells.rows), most, replace=False)
    drawn.sort()  # neighbours are read after each other and share what was decoded
    return Cells(cells.columns[drawn], cells.rows[drawn])


def stained_share(tile: Pixels) -> float:
    """Return the share of a tile's (height, width, 3) pixels with saturation > 130, value < 170.

    Saturation is 8-bit, rounded as OpenCV does, computed in whole numbers.
    """
    red, green, blue = (tile[..., channel] for channel in range(3))
    value = np.maximum(np.maximum(red, green), blue)
    chroma = (value - np.minimum(np.minimum(red, green), blue)).astype(np.int32)
    saturated = 2 * 255 * chroma > (2 * SATURATED + 1) * value.astype(np.int32)
    return float(np.count_nonzero(saturated & (value < LIGHT)) / value.size)


def sharpness(tile: Pixels) -> float:
    """Return the variance of the Laplacian of a tile's grey values."""
    from PIL import Image

    grey = np.asarray(Image.fromarray(tile).convert("L")).astype(np.int16)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((4 * grey[1:-1, 1:-1] - around).var())


class Tile(NamedTuple):
    """A tile that was kept, and its corner in pixels of level 0."""

    score: float
    corner: tuple[int, int]
    pixels: Pixels


@dataclass
class Best:
    """The best tiles so far; of equal ones the first that came stays.

    Attributes:
        size: how many to keep at most.
    """

    size: int
    _heap: list[tuple[float, int, Tile]] = field(default_factory=list)
    _came: int = 0

    def admits(self, score: float) -> bool:
        """Return whether a tile of this score would be kept."""
        return len(self._heap) < self.size or score > self._heap[0][0]

    def keep(self, tile: Tile) -> None:
        """Take in a tile that is admitted, and let the worst go."""
        self._came += 1
        # The count is unique, so no comparison ever gets to the pixels.
        item = (tile.score, -self._came, tile)
        if len(self._heap) < self.size:
            heappush(self._heap, item)
        else:
            heapreplace(self._heap, item)

    def __iter__(self) -> Iterator[Tile]:
        """Iterate over the tiles, best first."""
        return (tile for _, _, tile in sorted(self._heap, key=lambda item: item[:2], reverse=True))
