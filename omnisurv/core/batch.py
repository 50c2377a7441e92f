"""A batch of patients as slots: the patches of every modality, laid end to end.

Two booleans say all there is to say, True = usable. ``observed``: the patient has this token.
``visible``: the encoder is given it. Always ``visible ⊆ observed``. Inside a patch, NaN is a
value that nobody measured (an absent modality, a masked probe, the padding of the last patch).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from omnisurv.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class Layout:
    """Where each modality's slots lie: ``lengths`` patches of ``widths`` numbers each."""

    lengths: dict[str, int]
    widths: dict[str, int]

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


@dataclass(frozen=True)
class Batch:
    """Patches of some patients; NaN marks what was not measured."""

    patches: Mapping[str, Float[Tensor, "b _ _"]]
    layout: Layout

    @cached_property
    def observed(self) -> Bool[Tensor, "b n"]:
        """Return which tokens hold at least one measured value."""
        return torch.cat(
            [self.patches[name].isfinite().any(-1) for name in self.layout.lengths], dim=1
        )

    def __len__(self) -> int:
        return int(next(iter(self.patches.values())).shape[0])

    def rows(self, index: Int[Tensor, " _"] | slice) -> "Batch":
        """Return the chosen patients."""
        return Batch({name: patch[index] for name, patch in self.patches.items()}, self.layout)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on another device."""
        return Batch({n: p.to(device) for n, p in self.patches.items()}, self.layout)
