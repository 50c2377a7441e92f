"""A small cohort in memory: brains of four sequences with a tumour in three parts."""

from functools import cache

import numpy as np
import pandas as pd

import omnisurv as om
from omnisurv.data.images import Images
from omnisurv.data.spec import DataSpec
from omnisurv.data.store import Entry

SEQUENCES = ("t1", "t1ce", "t2", "flair")
# What core, oedema and enhancing tumour add to the signal of each sequence.
SHOWN = {"t1": (-1, -0.5, -0.5), "t1ce": (-1, -0.5, 3), "t2": (2, 1.5, 1), "flair": (0.5, 3, 1.5)}


def spec(size=16, patch=4, names=SEQUENCES, **options):
    return DataSpec.parse(
        {
            "name": "brains",
            "recipe": "bm_mae:tiny",
            "patients": {"id": "column"},
            "modalities": {
                name: {
                    "kind": "mri",
                    "source": {"format": "nifti", "table": "scans.tsv", "sequence": name},
                    "crop": "centre",
                    "size": size,
                    "patch": patch,
                    **options,
                }
                for name in names
            },
            "splits": {"test": 0.25},
        }
    )


@cache
def cohort(patients=32, size=16, patch=4, missing=0.2, seed=0, names=SEQUENCES):
    """Return patients whose tumour has a core, a ring that enhances, and oedema around.

    In every fourth patient nothing enhances; the last two rows of every cube are outside the
    volume, but for the first patient's.
    """
    rng = np.random.default_rng(seed)
    ids = [f"B{i:03d}" for i in range(patients)]
    cubes = {name: [] for name in names}
    maps = []
    for number, patient in enumerate(ids):
        labels = _tumour(rng, size, enhancing=number % 4 != 3)
        outside = size if number == 0 else size - 2
        labels[outside:] = 255
        for name in names:
            cube = _scan(rng, labels, SHOWN.get(name, (0, 0, 0)))
            cube[outside:] = np.nan
            if rng.random() > missing or number == 0:
                cubes[name].append(Entry(patient, cube, _meta(size, outside)))
        maps.append(Entry(patient, labels, {**_meta(size, outside), "edition": "brats21"}))
    obs = pd.DataFrame(index=ids)
    data = {name: Images(entries, "z-score") for name, entries in cubes.items()}
    return om.Cohort(obs, data, spec(size, patch, names), label_maps=Images(maps, "labels"))


def _tumour(rng, size, *, enhancing):
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"))
    middle = rng.uniform(0.35, 0.6, 3) * size
    distance = np.sqrt(((grid - middle[:, None, None, None]) ** 2).sum(0))
    radius = rng.uniform(0.2, 0.3) * size
    labels = np.zeros((size,) * 3, np.uint8)
    labels[distance < radius] = 2
    labels[distance < 0.7 * radius] = 3 if enhancing else 1
    labels[distance < 0.4 * radius] = 1
    return labels


def _scan(rng, labels, shown):
    cube = 0.3 * rng.standard_normal(labels.shape)
    for label, signal in zip((1, 2, 3), shown, strict=True):
        cube[labels == label] += signal
    return cube.astype(np.float32)


def _meta(size, outside):
    return {
        "affine": np.eye(4).tolist(), "shape": [outside, size, size], "start": [0, 0, 0],
        "size": size, "canonical": [[0, 1], [1, 1], [2, 1]], "native": None, "header": "",
    }  # fmt: skip
