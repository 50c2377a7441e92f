"""The seam of a modality: read it, fit a tokeniser, embed its patches, write it back.

A modality kind is one file in ``omnisurv/modalities`` whose class registers itself; the contract
tests run over the registry.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from omnisurv.config import Settings
from omnisurv.files import atomic
from omnisurv.layers import PatchEmbed, PatchLinear

if TYPE_CHECKING:
    from omnisurv.data.images import Data
    from omnisurv.data.readers import ReadContext
    from omnisurv.data.sources import Source

Values = NDArray[np.float32]
State = tuple[dict[str, Any], dict[str, NDArray[Any]]]


class Tokeniser(Protocol):
    """Fitted, weight-free and exactly invertible: raw values ↔ patches.

    ``patches`` are (n, l, p) float32 in standard units, NaN where nobody measured.
    """

    length: int
    """Number of patches l."""
    width: int
    """Numbers p in a patch."""
    grid: tuple[int, ...]
    """Patches along each axis of a volume or tile; one axis where they just lie in a row."""

    def tokenise(self, data: Any) -> Values:
        """Return the patches of each patient; features the cohort lacks are NaN."""

    def untokenise(self, patches: Values, patients: list[str]) -> Any:
        """Return values in the modality's own unit, the inverse of ``tokenise``."""

    def state(self) -> State:
        """Return all that was fitted, as JSON-able settings and arrays."""


class Modality(ABC):
    """One modality of a cohort: its name there, its kind and its options."""

    kind: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type[Settings]]
    formats: ClassVar[Mapping[str, type["Source"]]]
    """What it is read from: the format's name in a spec, and the keys it takes."""
    least: ClassVar[int] = 2
    """Training patients that a tokeniser needs."""

    def __init__(self, name: str, options: Settings) -> None:
        self.name = name
        self.options = options

    @abstractmethod
    def read(self, source: "Source", context: "ReadContext") -> "Data":
        """Read the source into patients × features, or pictures; raise DataError if unusable."""

    @abstractmethod
    def fit(self, train: Any) -> Tokeniser:
        """Learn filters, order and scales from training patients who have the modality."""

    @abstractmethod
    def restore(self, state: State) -> Tokeniser:
        """Rebuild a fitted tokeniser from its state."""

    @classmethod
    @abstractmethod
    def example(cls, generator: np.random.Generator) -> tuple["Modality", "Data"]:
        """Return a small modality with data, for tests and docs."""

    def embed(self, tokeniser: Tokeniser, dim: int, *, shared: bool) -> nn.Module:
        """Return the learned map from patches to tokens."""
        return PatchEmbed(tokeniser.length, tokeniser.width, dim, shared=shared)

    def predict(self, tokeniser: Tokeniser, dim: int, *, shared: bool) -> nn.Module:
        """Return the learned map from decoder states to patches."""
        # Starting near zero is starting at the mean of every feature.
        return PatchLinear(tokeniser.length, dim, tokeniser.width, shared=shared, gain=0.1)

    def write(self, filled: Any, folder: Path) -> list[Path]:
        """Write a completed modality in the field's format; return the files.

        Tables of features (AnnData) become ``.h5ad``; pictures come as ``FilledImages``.
        """
        target = folder / f"{self.name}.h5ad"
        with atomic(target) as path:
            filled.write_h5ad(path)
        return [target]
