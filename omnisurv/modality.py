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
from omnisurv.layers import PatchEmbed, PatchLinear

if TYPE_CHECKING:
    from anndata import AnnData

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

    def tokenise(self, data: "AnnData") -> Values:
        """Return the patches of each patient; features the cohort lacks are NaN."""

    def untokenise(self, patches: Values, patients: "list[str]") -> "AnnData":
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

    def __init__(self, name: str, options: Settings) -> None:
        self.name = name
        self.options = options

    @abstractmethod
    def read(self, source: "Source", context: "ReadContext") -> "AnnData":
        """Read the source into patients × features; raise DataError where it cannot be used."""

    @abstractmethod
    def fit(self, train: "AnnData") -> Tokeniser:
        """Learn filters, order and scales from training patients who have the modality."""

    @abstractmethod
    def restore(self, state: State) -> Tokeniser:
        """Rebuild a fitted tokeniser from its state."""

    @classmethod
    @abstractmethod
    def example(cls, generator: np.random.Generator) -> tuple["Modality", "AnnData"]:
        """Return a small modality with data, for tests and docs."""

    def embed(self, tokeniser: Tokeniser, dim: int, *, shared: bool) -> nn.Module:
        """Return the learned map from patches to tokens."""
        return PatchEmbed(tokeniser.length, tokeniser.width, dim, shared=shared)

    def predict(self, tokeniser: Tokeniser, dim: int, *, shared: bool) -> nn.Module:
        """Return the learned map from decoder states to patches."""
        # Starting near zero is starting at the mean of every feature.
        return PatchLinear(tokeniser.length, dim, tokeniser.width, shared=shared, gain=0.1)

    def write(self, values: "AnnData", folder: Path) -> Path:
        """Write values in the field's format; return the file."""
        path = folder / f"{self.name}.h5ad"
        values.write_h5ad(path)
        return path
