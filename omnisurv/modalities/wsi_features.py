"""Features of slide tiles: what each sort of tissue looks like in a patient, and how much of it.

A slide is thousands of tiles without order. Prototypes are fitted to the tiles of training
patients (k-means, as in PANTHER, Song et al. 2024); a patient's token for a prototype is the mean
of the tiles nearest to it and their share. These means and shares *are* the modality's values: a
model reads and imputes them, never single tiles.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from omnisurv.config import Settings
from omnisurv.data.images import Images
from omnisurv.data.readers.slides import Kind
from omnisurv.data.readers.stored import StoredSource
from omnisurv.data.readers.trident import SCALE, TridentSource
from omnisurv.data.sources import Source
from omnisurv.data.store import Entry
from omnisurv.errors import DataError
from omnisurv.modality import Modality, State
from omnisurv.registry import modalities

if TYPE_CHECKING:
    from anndata import AnnData

    from omnisurv.data.readers import ReadContext

Floats = NDArray[np.float32]

SAMPLE = 200_000
"""Tiles of training patients that prototypes are fitted to, as many of each patient."""
UNIT = "prototype means"


class WsiFeaturesOptions(Settings):
    """Options of the features of slide tiles."""

    prototypes: int = Field(default=16, ge=1)
    """Sorts of tissue, a token each (PANTHER: 16)."""
    slides: Kind = "diagnostic"
    """FFPE (DX), frozen sections (TS, MS, BS) or any, by their barcode."""
    seed: int = 0


class PrototypeTokeniser:
    """Means and shares of the tiles nearest to each prototype, in standard units.

    A patch has the mean's ``width - 1`` features and the root of the share. Where no tile of a
    patient is nearest to a prototype, the share is 0, which is known, and the mean is NaN.

    Args:
        prototypes: (k, d), commonest first.
        center: (k, d + 1) means over training patients.
        spread: (k, d + 1) standard deviations; one for all prototypes but for the shares.
    """

    def __init__(self, prototypes: Floats, center: Floats, spread: Floats) -> None:
        self.prototypes, self.center, self.spread = prototypes, center, spread
        self.length, self.width = center.shape
        self.grid: tuple[int, ...] = (self.length,)
        self.unit = UNIT
        self._known: dict[str, Floats] = {}

    def tokenise(self, data: Images) -> Floats:
        """Return patches (n, k, d + 1)."""
        rows = [self._summary(entry) for entry in data.entries]
        summaries = np.stack(rows) if rows else np.empty((0, *self.center.shape), np.float32)
        return ((summaries - self.center) / self.spread).astype(np.float32)

    def untokenise(self, patches: NDArray[Any], patients: list[str]) -> "AnnData":
        """Return means and shares, a column for each."""
        return self._table(np.asarray(patches, dtype=float) * self.spread + self.center, patients)

    def values(self, data: Images) -> "AnnData":
        """Return the means and shares that patients have."""
        summaries = np.stack([self._summary(entry) for entry in data.entries])
        return self._table(summaries.astype(float), list(data.obs_names))

    def state(self) -> State:
        """Return all that was fitted."""
        arrays = {"prototypes": self.prototypes, "center": self.center, "spread": self.spread}
        return {}, arrays

    def _summary(self, entry: Entry) -> Floats:
        """Return means and roots of shares (k, d + 1) of a patient; computed once."""
        key = f"{entry.patient} {entry.key}"
        if key not in self._known:
            tiles = np.asarray(entry.open(), dtype=np.float32)
            if tiles.shape[1] != self.prototypes.shape[1]:
                raise DataError(
                    f"the tiles of {entry.patient} have {tiles.shape[1]} features, the model was "
                    f"fitted on {self.prototypes.shape[1]}; give features of the same encoder"
                )
            self._known[key] = summarise(tiles, self.prototypes)
        return self._known[key]

    def _table(self, summaries: NDArray[np.floating[Any]], patients: list[str]) -> "AnnData":
        import anndata

        values = summaries.copy()
        values[..., -1] = np.clip(values[..., -1], 0.0, 1.0) ** 2
        names = [
            f"prototype_{k:02d}:{f'feature_{i:04d}' if i < self.width - 1 else 'share'}"
            for k in range(self.length)
            for i in range(self.width)
        ]
        return anndata.AnnData(
            values.reshape(len(values), -1).astype(np.float32),
            obs=pd.DataFrame(index=pd.Index([str(p) for p in patients], name="patient")),
            var=pd.DataFrame(index=pd.Index(names, name="feature")),
            uns={"scale": UNIT},
        )


def summarise(tiles: Floats, prototypes: Floats) -> Floats:
    """Return (k, d + 1): the mean of the tiles (n, d) nearest to each prototype, and √share."""
    distance = (prototypes**2).sum(axis=1) - 2.0 * tiles @ prototypes.T
    nearest = np.eye(len(prototypes), dtype=np.float32)[distance.argmin(axis=1)]
    count = nearest.sum(axis=0)[:, None]
    with np.errstate(invalid="ignore"):
        mean = (nearest.T @ tiles) / np.where(count > 0, count, np.nan)
    return np.hstack([mean, np.sqrt(count / len(tiles))]).astype(np.float32)


@modalities.register("wsi_features")
class WsiFeatures(Modality):
    """Tile features of any pathology encoder, as means of prototypes."""

    kind = "wsi_features"
    summary = "features of slide tiles (TRIDENT), a token for each sort of tissue"
    Options = WsiFeaturesOptions
    formats: ClassVar = {"trident": TridentSource, "store": StoredSource}
    options: WsiFeaturesOptions

    def read(self, source: Source, context: "ReadContext") -> Images:
        """Read a folder of TRIDENT's feature files, or what was read of one before."""
        from omnisurv.data.readers import read_stored, read_trident

        if isinstance(source, StoredSource):
            return read_stored(source, context, {"slides": self.options.slides})
        assert isinstance(source, TridentSource)
        return read_trident(source, context, self.options.slides)

    def fit(self, train: Images) -> PrototypeTokeniser:
        """Fit prototypes to tiles of training patients, and how patients vary around them."""
        prototypes = self._prototypes(train)
        k, d = prototypes.shape
        tokeniser = PrototypeTokeniser(prototypes, *np.stack([np.zeros((k, d + 1))] * 2))
        summaries = np.stack([tokeniser._summary(entry) for entry in train.entries]).astype(float)
        there = np.isfinite(summaries)
        count = there.sum(axis=0)
        # Shrunk towards the prototype by a patient's worth: few may have a rare sort of tissue.
        total = np.where(there, summaries, 0.0).sum(axis=0)
        center = total / np.maximum(count, 1)
        center[:, :-1] = (total[:, :-1] + prototypes) / (count[:, :-1] + 1)
        away = np.where(there, summaries - center, 0.0) ** 2
        spread = np.empty_like(center)
        spread[:, :-1] = np.sqrt(away[..., :-1].sum((0, 1)) / np.maximum(count[:, :-1].sum(0), 1))
        spread[:, -1] = np.sqrt(away[..., -1].mean(axis=0))
        spread = np.where(spread > 1e-6, spread, 1.0)
        fitted = PrototypeTokeniser(prototypes, center.astype("f4"), spread.astype("f4"))
        fitted._known = tokeniser._known
        return fitted

    def restore(self, state: State) -> PrototypeTokeniser:
        """Rebuild a fitted tokeniser."""
        _, arrays = state
        return PrototypeTokeniser(arrays["prototypes"], arrays["center"], arrays["spread"])

    def _prototypes(self, train: Images) -> Floats:
        """Return the centres of k-means on tiles of training patients, commonest first."""
        from sklearn.cluster import MiniBatchKMeans

        generator = np.random.default_rng(self.options.seed)
        most = max(1, SAMPLE // len(train))
        sample = []
        for row in range(len(train)):
            tiles = train.array(row)
            chosen = generator.permutation(len(tiles))[:most]
            sample.append(np.asarray(tiles[np.sort(chosen)], dtype=np.float32))
        tiles = np.concatenate(sample)
        k = min(self.options.prototypes, len(tiles))
        found = MiniBatchKMeans(k, random_state=self.options.seed, n_init=3).fit(tiles)
        order = np.argsort(-np.bincount(found.labels_, minlength=k), kind="stable")
        return np.asarray(found.cluster_centers_[order], dtype=np.float32)

    @classmethod
    def example(cls, generator: np.random.Generator) -> tuple["WsiFeatures", Images]:
        """Return 24 patients with 5 to 40 tiles of three sorts; every fourth lacks one of them."""
        sorts = 4.0 * np.eye(3, 6)
        entries = []
        for row in range(24):
            likely = generator.dirichlet([2.0, 2.0, 2.0])
            if row % 4 == 0:
                likely = np.array([0.5, 0.5, 0.0])
            which = generator.choice(3, size=generator.integers(5, 41), p=likely)
            own = sorts + 0.5 * generator.normal(size=(3, 6))
            tiles = own[which] + 0.3 * generator.normal(size=(len(which), 6))
            meta = {"slides": [f"{row}.h5"], "tiles": [len(tiles)], "width": 6, "left_out": {}}
            entries.append(Entry(f"TCGA-00-{row:04d}", tiles.astype(np.float16), meta))
        return cls("wsi", WsiFeaturesOptions(prototypes=3)), Images(entries, SCALE)
