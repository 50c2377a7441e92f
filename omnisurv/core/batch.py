"""A batch of patients as slots: the patches of every modality, laid end to end.

Two booleans say all there is to say, True = usable. ``observed``: the patient has this token.
``visible``: the encoder is given it. Always ``visible ⊆ observed``. Inside a patch, NaN is a
value that nobody measured (an absent modality, a masked probe, the padding of the last patch).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch

from omnisurv.shapes import Bool, Float, Int, Tensor

CHUNK, MOST = 2**25, 256
"""Numbers, and patients, that are loaded at a time when all patients are gone through."""


@dataclass(frozen=True)
class Layout:
    """Where each modality's slots lie: ``lengths`` patches of ``widths`` numbers each.

    Patches of pictures lie on a grid. A slide is several *blocks*, its tiles, of one grid each.
    """

    lengths: dict[str, int]
    widths: dict[str, int]
    grids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Patches of one block along each axis; of what is not named, all slots in a row."""

    def grid(self, name: str) -> tuple[int, ...]:
        """Return the grid of one block of a modality."""
        return self.grids.get(name, (self.lengths[name],))

    def block(self, name: str) -> int:
        """Return the slots of one block of a modality: all of them, but for tiles."""
        return math.prod(self.grid(name))

    def is_picture(self, name: str) -> bool:
        """Return whether the modality's patches lie on a grid of two or three axes."""
        return len(self.grid(name)) > 1

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Return the slots of each modality."""
        slices, start = {}, 0
        for name, length in self.lengths.items():
            slices[name] = slice(start, start + length)
            start += length
        return slices

    @property
    def slots(self) -> int:
        """Return the number of slots of all modalities together."""
        return sum(self.lengths.values())

    @cached_property
    def modality_of_slot(self) -> Int[Tensor, " n"]:
        """Return the index of the modality that owns each slot."""
        lengths = torch.tensor(list(self.lengths.values()))
        return torch.repeat_interleave(torch.arange(len(lengths)), lengths)


class Stored(Protocol):
    """Patches of one modality that are kept elsewhere, such as on disk."""

    @property
    def observed(self) -> Bool[Tensor, "b l"]:
        """Which patches hold anything; known without reading them."""

    def __getitem__(self, rows: Int[Tensor, " _"]) -> "Stored":
        """Return some patients, still not read."""

    def load(self, kept: Bool[Tensor, "b l"] | None) -> Float[Tensor, "b l p"]:
        """Read the patches; NaN where there is none, or it is not among ``kept``."""


@dataclass(frozen=True)
class Batch:
    """Patches of some patients; NaN marks what was not measured.

    Attributes:
        patches: values of each modality.
        layout: where their slots lie.
        stored: modalities that are not read yet; networks want them loaded.
    """

    patches: Mapping[str, Float[Tensor, "b _ _"]]
    layout: Layout
    stored: Mapping[str, Stored] = field(default_factory=dict)

    @cached_property
    def observed(self) -> Bool[Tensor, "b n"]:
        """Return which tokens hold at least one measured value."""
        return torch.cat(
            [
                self.stored[name].observed
                if name in self.stored
                else self.patches[name].isfinite().any(-1)
                for name in self.layout.lengths
            ],
            dim=1,
        )

    def __len__(self) -> int:
        return len(self.observed) if self.stored else len(next(iter(self.patches.values())))

    def rows(self, index: Int[Tensor, " _"] | Bool[Tensor, " b"] | slice) -> "Batch":
        """Return the chosen patients; what is stored stays so."""
        numbers = torch.arange(len(self) if self.stored else 0)
        numbers = numbers[index] if self.stored else numbers
        chosen = Batch(
            {name: patch[index] for name, patch in self.patches.items()},
            self.layout,
            {name: stored[numbers] for name, stored in self.stored.items()},
        )
        return chosen._knowing(self.observed[index])

    def values(self, name: str) -> Float[Tensor, "b l p"]:
        """Return the patches of one modality, read where they are stored."""
        return self.stored[name].load(None) if name in self.stored else self.patches[name]

    def load(self, kept: Bool[Tensor, "b n"] | None = None) -> "Batch":
        """Return the batch with all patches read; NaN where they are not among ``kept``."""
        if kept is None and not self.stored:
            return self
        patches = {}
        for name, where in self.layout.slices.items():
            mine = None if kept is None else kept[:, where]
            if name in self.stored:
                patches[name] = self.stored[name].load(mine)
            elif mine is None:
                patches[name] = self.patches[name]
            else:
                patches[name] = self.patches[name].masked_fill(~mine[..., None], torch.nan)
        there = self.observed if kept is None else self.observed & kept
        return Batch(patches, self.layout)._knowing(there)

    def chunks(self, most: int = MOST) -> Iterator[Int[Tensor, " _"]]:
        """Yield the positions of all patients, few enough at a time to be loaded."""
        size = sum(self.layout.lengths[n] * self.layout.widths[n] for n in self.layout.lengths)
        yield from torch.arange(len(self)).split(max(1, min(most, CHUNK // max(size, 1))))

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch, loaded, on another device."""
        loaded = self.load()
        moved = Batch({n: p.to(device) for n, p in loaded.patches.items()}, self.layout)
        return moved._knowing(self.observed.to(device))

    def _knowing(self, observed: Bool[Tensor, "b n"]) -> "Batch":
        """Return the batch itself, told what it would otherwise look for."""
        self.__dict__["observed"] = observed
        return self
