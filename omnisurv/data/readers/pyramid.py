"""A slide read at the scale that is asked for, a part at a time."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisurv.data.readers.tissue import Pixels

if TYPE_CHECKING:
    from openslide import OpenSlide
    from PIL.Image import Image

NEAR = 0.02
"""Pixels, or squares of them, that are so near to the wanted size stand for it: resampling by 1.98
would only blur, and cells of a whole number of pixels fall on the tiles of the file."""
BLOCK = 2048
"""Side of the squares, in pixels of the level read, in which an overview is put together."""


@dataclass(frozen=True)
class Grid:
    """Squares side by side on a slide, and how to read one at the wanted scale.

    Attributes:
        tile: side of a tile in pixels as wanted.
        level: the pyramid's level to read from.
        downsample: pixels of level 0 along one of that level.
        ratio: pixels of that level along one as wanted; whole where it is nearly so.
        columns: squares along x.
        rows: squares along y.
    """

    tile: int
    level: int
    downsample: float
    ratio: float
    columns: int
    rows: int

    @classmethod
    def on(cls, slide: "OpenSlide", tile: int, factor: float) -> "Grid":
        """Lay the squares over a slide, ``factor`` pixels of level 0 along a pixel as wanted."""
        level = slide.get_best_level_for_downsample(factor * (1 + NEAR))
        downsample = slide.level_downsamples[level]
        ratio = factor / downsample
        whole = max(round(ratio), 1)
        if abs(ratio / whole - 1) <= NEAR:
            ratio = whole
        side = tile * ratio * downsample
        columns, rows = (int(length / side) for length in slide.dimensions)
        return cls(tile, level, downsample, ratio, columns, rows)

    @property
    def side(self) -> float:
        """Side of a square in pixels of level 0; seldom whole."""
        return self.tile * self.ratio * self.downsample

    def corner(self, column: int, row: int) -> tuple[int, int]:
        """Return a square's corner in level 0, on a whole pixel of the level that is read."""
        x, y = (round(number * self.tile * self.ratio) for number in (column, row))
        return round(x * self.downsample), round(y * self.downsample)

    def read(self, slide: "OpenSlide", corner: tuple[int, int]) -> Pixels:
        """Return a square as (tile, tile, 3) uint8."""
        from PIL.Image import Resampling

        side = self.tile * self.ratio
        whole = math.ceil(side)
        picture = _opaque(slide.read_region(corner, self.level, (whole, whole)))
        if self.ratio == int(self.ratio):
            return np.asarray(picture.reduce(int(self.ratio)))  # means of squares
        # At broken ratios this one comes nearest to such means without blurring or steps.
        resized = picture.resize((self.tile, self.tile), Resampling.HAMMING, box=(0, 0, side, side))
        return np.asarray(resized)


def read_overview(slide: "OpenSlide", factor: float) -> Pixels:
    """Return the whole slide, ``factor`` pixels of level 0 along a pixel, block by block."""
    from PIL.Image import Resampling

    level = slide.get_best_level_for_downsample(factor)
    downsample = slide.level_downsamples[level]
    step = factor / downsample
    width, height = (max(int(side / factor), 1) for side in slide.dimensions)
    overview = np.empty((height, width, 3), np.uint8)
    block = max(int(BLOCK / step), 1)
    for top in range(0, height, block):
        for left in range(0, width, block):
            part = overview[top : top + block, left : left + block]
            # The block's own edges seldom fall between pixels: read all that it touches.
            x, y = int(left * step), int(top * step)
            box = (
                left * step - x,
                top * step - y,
                (left + part.shape[1]) * step - x,
                (top + part.shape[0]) * step - y,
            )
            size = (math.ceil(box[2]), math.ceil(box[3]))
            corner = (round(x * downsample), round(y * downsample))
            picture = _opaque(slide.read_region(corner, level, size))
            part[:] = picture.resize((part.shape[1], part.shape[0]), Resampling.BOX, box=box)
    return overview


def _opaque(picture: "Image") -> "Image":
    """Return RGB; what the scanner left out is white as glass, not black."""
    from PIL import Image

    alpha = picture.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return picture.convert("RGB")
    glass = Image.new("RGB", picture.size, "white")
    glass.paste(picture, mask=alpha)
    return glass
