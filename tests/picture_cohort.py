"""A small cohort in memory whose pictures carry what its table and survival are made of."""

from functools import cache

import anndata
import numpy as np
import pandas as pd

import omnisurv as om
from omnisurv.data.images import Images
from omnisurv.data.spec import DataSpec
from omnisurv.data.store import Entry

MODALITIES = {
    "clinical": {
        "kind": "table",
        "source": {"format": "table", "path": "clinical.tsv"},
        "columns": {"age": "continuous", "grade": "continuous"},
    },
    "rna": {"kind": "rna", "source": {"format": "matrix", "path": "rna.tsv"}, "patch": 8},
    "t1": {
        "kind": "mri",
        "source": {"format": "brats", "path": "mri", "sequence": "t1"},
        "size": 8,
        "patch": 4,
    },
    "t2": {
        "kind": "mri",
        "source": {"format": "brats", "path": "mri", "sequence": "t2"},
        "size": 8,
        "patch": 4,
    },
    "wsi": {
        "kind": "wsi",
        "source": {"format": "slides", "path": "wsi"},
        "tiles": 3,
        "tile": 8,
        "patch": 4,
    },
}
SPEC = {
    "name": "pictures",
    "endpoint": {"table": "clinical.tsv", "time": "time", "event": "event"},
    "modalities": MODALITIES,
    "splits": {"test": 0.3, "folds": 3},
}


@cache
def cohort(patients=120, seed=0):
    """Return patients of whom a third lacks each picture, and some a tile or two."""
    rng = np.random.default_rng(seed)
    names = [f"TCGA-00-{i:04d}" for i in range(patients)]
    factor = rng.standard_normal((patients, 2))
    time = rng.exponential(1000.0, patients) * np.exp(-1.2 * factor[:, 0]) + 1.0
    event = (rng.random(patients) < 0.75).astype(float)
    obs = pd.DataFrame({"time": time, "event": event}, index=names)
    genes = np.exp(1.0 + 0.4 * factor @ rng.standard_normal((2, 24)))
    modalities = {
        "clinical": _table(names, factor + 0.5 * rng.standard_normal((patients, 2)), "table"),
        "rna": _table(names, genes, "linear"),
        "t1": _volumes(rng, names, factor),
        "t2": _volumes(rng, names, factor),
        "wsi": _slides(rng, names, factor),
    }
    for name, data in modalities.items():
        has = rng.random(patients) < (0.9 if name == "clinical" else 0.65)
        modalities[name] = data[has].copy()
    return om.Cohort(obs, modalities, DataSpec.parse(SPEC))


def _table(names, values, scale):
    columns = ["age", "grade"] if scale == "table" else [f"G{i}" for i in range(values.shape[1])]
    var = pd.DataFrame(index=columns)
    if scale == "table":
        var["type"], var["source"] = "continuous", columns
    return anndata.AnnData(
        values.astype(np.float32), pd.DataFrame(index=names), var, uns={"scale": scale}
    )


def _volumes(rng, names, factor):
    shapes = rng.standard_normal((2, 8, 8, 8))
    entries = []
    for name, row in zip(names, factor, strict=True):
        volume = np.tensordot(row, shapes, 1) + 0.3 * rng.standard_normal((8, 8, 8))
        volume[:, :, :2] = np.nan  # padding
        meta = {"affine": np.eye(4).tolist(), "shape": [8, 8, 8], "start": [0, 0, 0]}
        entries.append(Entry(name, volume.astype(np.float32), meta))
    return Images(entries, "z-score")


def _slides(rng, names, factor):
    entries = []
    for name, row in zip(names, factor, strict=True):
        tiles = 160 + 25 * row[0] + 15 * row[1] + 12 * rng.standard_normal((3, 8, 8, 3))
        count = rng.integers(1, 4)
        entries.append(Entry(name, np.clip(tiles[:count], 0, 255).astype(np.uint8), {}))
    return Images(entries, "rgb")
