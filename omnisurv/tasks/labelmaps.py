"""Label maps as the answers that segmentation learns from."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from omnisurv.data.images import Images
from omnisurv.data.regions import BACKGROUND, CORE, ENHANCING, OEDEMA, OUTSIDE
from omnisurv.errors import DataError
from omnisurv.shapes import Int, Tensor

KNOWN = frozenset({BACKGROUND, CORE, OEDEMA, ENHANCING, OUTSIDE})


class Labels(NamedTuple):
    """Label maps that are read: common labels, 255 outside the volume."""

    values: Int[Tensor, "b x y z"]

    def rows(self, index: Int[Tensor, " _"]) -> "Labels":
        """Return some patients."""
        return Labels(self.values[index])

    def to(self, device: torch.device) -> "Labels":
        """Return the label maps on a device."""
        return Labels(self.values.to(device))


@dataclass(frozen=True)
class StoredLabels:
    """Label maps that stay in the store until a step needs them.

    Attributes:
        maps: of a cohort.
        places: the position among them of each patient.
        size: side of the cubes that the networks take.
    """

    maps: Images
    places: Int[Tensor, " b"]
    size: int

    def rows(self, index: Int[Tensor, " _"]) -> "StoredLabels":
        """Return some patients, still not read."""
        return StoredLabels(self.maps, self.places[index], self.size)

    def to(self, device: torch.device) -> Labels:
        """Return the label maps, read, on a device."""
        maps = [self._read(int(place)) for place in self.places]
        return Labels(torch.stack(maps).to(device))

    def _read(self, place: int) -> Tensor:
        labels, patient = np.array(self.maps.array(place)), self.maps.obs_names[place]
        strange = set(np.unique(labels).tolist()) - KNOWN
        if strange:
            raise DataError(
                f"the label map of {patient} holds {min(strange)}, which is no common label (0 to "
                "3): is it of another edition? Read it through the spec's `segmentation:`"
            )
        if labels.shape != (self.size,) * 3:
            raise DataError(
                f"the label map of {patient} is {labels.shape}, its sequences are cubes of "
                f"{self.size}; cut both alike"
            )
        return torch.from_numpy(labels)
