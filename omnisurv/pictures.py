"""The tokeniser of pictures: volumes and tiles cut into cubes or squares, and put back."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omnisurv.data.images import Images
from omnisurv.errors import DataError
from omnisurv.shapes import Bool, Float, Int, Tensor

Values = NDArray[np.float32]
State = tuple[dict[str, Any], dict[str, NDArray[Any]]]


class PictureTokeniser:
    """Cut blocks × space × channels into patches, and put them back; what is not there is NaN.

    A volume is one block with one channel; a slide's tiles are blocks with three.

    Args:
        blocks: pictures of a patient at most (tiles); a patient may have fewer.
        space: size of a block along each axis, in pixels or voxels.
        patch: side of a patch, which divides every axis.
        channels: numbers in a pixel.
        center: (channels,), or (*space, channels), subtracted from the values.
        spread: (channels,) they are then divided by.
        unit: unit of the stored values.
    """

    def __init__(
        self,
        blocks: int,
        space: Sequence[int],
        patch: int,
        channels: int,
        center: NDArray[Any],
        spread: NDArray[Any],
        unit: str,
    ) -> None:
        self.blocks, self.space, self.patch = blocks, tuple(space), patch
        self.channels, self.unit = channels, unit
        self.center = np.asarray(center, np.float32)
        self.spread = np.asarray(spread, np.float32)
        self.grid = tuple(side // patch for side in self.space)
        self.length = blocks * math.prod(self.grid)
        self.width = patch ** len(self.space) * channels

    def tokenise(self, data: Images) -> Values:
        """Return the patches (n, l, p) of each patient in standard units."""
        patches = np.full((len(data), self.length, self.width), np.nan, np.float32)
        for row in range(len(data)):
            patches[row] = self.patches_of(data, row)
        return patches

    def patches_of(self, data: Images, row: int, kept: NDArray[np.bool_] | None = None) -> Values:
        """Return the patches (l, p) of one patient; blocks without any ``kept`` are not read."""
        array = self._checked(data, row)
        size = math.prod(self.grid)
        wanted = np.arange(len(array))
        if kept is not None:
            by_block = kept.reshape(self.blocks, size).any(axis=1)
            wanted = np.flatnonzero(by_block[: len(array)])  # type: ignore[index]
        patches = np.full((self.blocks, size, self.width), np.nan, np.float32)
        scaled = (array[wanted].astype(np.float32) - self.center) / self.spread
        patches[wanted] = self._cut(scaled).reshape(len(wanted), size, self.width)
        flat = patches.reshape(self.length, self.width)
        if kept is not None:
            flat[~kept] = np.nan
        return flat

    def observed(self, data: Images, row: int) -> NDArray[np.bool_]:
        """Return which patches (l,) of one patient hold anything."""
        array = self._checked(data, row)
        there = np.zeros(self.length, dtype=bool)
        if array.dtype.kind == "f":
            cut = np.isfinite(self._cut(np.asarray(array))).any(axis=1)
            there[: len(cut)] = cut
        else:  # whole numbers have no holes
            there[: len(array) * math.prod(self.grid)] = True
        return there

    def untokenise(self, patches: NDArray[Any], patients: Sequence[str]) -> Values:
        """Return (n, blocks, *space, channels) in the unit of the store."""
        return self.joined(patches) * self.spread + self.center

    def joined(self, patches: NDArray[Any]) -> Values:
        """Return the numbers of patches in their places, as they stand, of the same shape."""
        axes = len(self.space)
        sides = [part for count in self.grid for part in (count, self.patch)]
        split = np.asarray(patches, np.float32).reshape(
            len(patches), self.blocks, *self.grid, *[self.patch] * axes, self.channels
        )
        order = [part for axis in range(axes) for part in (2 + axis, 2 + axes + axis)]
        joined = split.transpose(0, 1, *order, 2 + 2 * axes)
        assert joined.shape[2:-1] == tuple(sides)
        return joined.reshape(len(patches), self.blocks, *self.space, self.channels)

    def state(self) -> State:
        """Return all that was fitted."""
        settings = {
            "blocks": self.blocks,
            "space": list(self.space),
            "patch": self.patch,
            "channels": self.channels,
            "unit": self.unit,
        }
        return settings, {"center": self.center, "spread": self.spread}

    @classmethod
    def restore(cls, state: State) -> "PictureTokeniser":
        """Rebuild the tokeniser from its state."""
        settings, arrays = state
        return cls(**settings, center=arrays["center"], spread=arrays["spread"])

    def _checked(self, data: Images, row: int) -> NDArray[Any]:
        """Return the array as (blocks there, *space, channels)."""
        if data.uns["scale"] != self.unit:
            raise DataError(
                f"pictures are on the scale '{data.uns['scale']}', the model was fitted on "
                f"'{self.unit}'; read them with the same kind"
            )
        array = data.array(row)
        if array.ndim == len(self.space):
            array = array[None, ..., None]
        if array.shape[1:] != (*self.space, self.channels):
            raise DataError(
                f"the picture of {data.obs_names[row]} is {array.shape[1:-1]}, the model was "
                f"fitted on {self.space}; say the same `size` (or `tile`) in the spec"
            )
        return array[: self.blocks]

    def _cut(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return patches (blocks · grid, p) of an array (blocks, *space, channels)."""
        axes = len(self.space)
        sides = [part for count in self.grid for part in (count, self.patch)]
        split = array.reshape(len(array), *sides, self.channels)
        counts, insides = range(1, 2 * axes, 2), range(2, 2 * axes + 1, 2)
        ordered = split.transpose(0, *counts, *insides, 2 * axes + 1)
        return ordered.reshape(len(array) * math.prod(self.grid), self.width)


class StoredPatches:
    """Patches of a cohort's pictures, read from the store when a batch is loaded.

    Args:
        tokeniser: cuts the pictures.
        images: the pictures there are.
        rows: for each patient the position among ``images``; -1 for none.
    """

    def __init__(
        self, tokeniser: PictureTokeniser, images: Images, rows: NDArray[np.int64]
    ) -> None:
        self.tokeniser, self.images, self.places = tokeniser, images, rows
        self._observed: Tensor | None = None

    @property
    def size(self) -> int:
        """Numbers in all patches, those of patients without a picture included."""
        return len(self.places) * self.tokeniser.length * self.tokeniser.width

    @property
    def observed(self) -> Bool[Tensor, "b l"]:
        """Which patches hold anything."""
        if self._observed is None:
            there = np.zeros((len(self.places), self.tokeniser.length), dtype=bool)
            for patient in np.flatnonzero(self.places >= 0):
                there[patient] = self.tokeniser.observed(self.images, self.places[patient])
            self._observed = torch.from_numpy(there)
        return self._observed

    def __getitem__(self, rows: Int[Tensor, " _"]) -> "StoredPatches":
        """Return some patients, still not read."""
        chosen = StoredPatches(self.tokeniser, self.images, self.places[rows.numpy()])
        chosen._observed = self.observed[rows]
        return chosen

    def load(self, kept: Bool[Tensor, "b l"] | None = None) -> Float[Tensor, "b l p"]:
        """Read the patches; NaN where there is none, or it is not among ``kept``."""
        tokeniser = self.tokeniser
        shape = (len(self.places), tokeniser.length, tokeniser.width)
        patches = np.full(shape, np.nan, np.float32)
        for patient in np.flatnonzero(self.places >= 0):
            mine = None if kept is None else kept[patient].numpy()
            if mine is None or mine.any():
                place = int(self.places[patient])
                patches[patient] = tokeniser.patches_of(self.images, place, mine)
        return torch.from_numpy(patches)
