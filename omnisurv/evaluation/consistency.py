"""Does an encoder place a patient alike, whichever sequences it is given?"""

from collections.abc import Collection
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from omnisurv.core.masking import explicit
from omnisurv.errors import DataError
from omnisurv.files import atomic, writable

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.core import Layout
    from omnisurv.data.cohort import Cohort

LEAST_PATIENTS = 5
"""Few centred embeddings look alike, or opposite, by their centring alone."""
MOST_MODALITIES = 6
"""63 subsets; another modality doubles them."""


def consistency(
    model: "FittedModel", cohort: "Cohort", modalities: Collection[str] | None = None
) -> pd.DataFrame:
    """Return how alike a patient's embeddings from different subsets are, subsets × subsets.

    Each is the cosine of the encoder's summaries (the class token, of the first member), the mean
    over patients who have all of the modalities. Before, the mean embedding over these patients
    is taken from those of each subset: every encoder has a part that is the same for everybody,
    which puts uncentred cosines near 1 whatever it knows. 1 is the same place among the patients,
    0 what two strangers have in common.

    Args:
        model: any fitted model.
        cohort: patients; those who lack one of the modalities are left out.
        modalities: two to six; by default the MRI sequences, of which four have 15 subsets.

    Raises:
        DataError: fewer than two modalities or too many, or hardly anybody who has all of them.
    """
    batch = model.batch(cohort)
    names = _modalities(model, cohort, batch.layout, modalities)
    has = cohort.availability[names].all(axis=1).to_numpy()
    if has.sum() < LEAST_PATIENTS:
        raise DataError(
            f"{int(has.sum())} patients have all of {', '.join(names)}, {LEAST_PATIENTS} are "
            "needed; name fewer modalities"
        )
    part = batch.rows(torch.from_numpy(has))
    encoder = model.mae(0).eval()
    subsets = [s for size in range(1, len(names) + 1) for s in combinations(names, size)]
    placed: list[list[torch.Tensor]] = [[] for _ in subsets]
    with torch.no_grad():
        for rows in part.chunks():
            some = part.rows(rows).load()
            for number, subset in enumerate(subsets):
                visible = explicit(some.observed, some.layout, subset)
                placed[number].append(encoder.encode(some, visible).summary.double())
    embeddings = torch.stack([torch.cat(parts) for parts in placed])
    centred = embeddings - embeddings.mean(1, keepdim=True)
    unit = torch.nn.functional.normalize(centred, dim=2)
    cosines = torch.einsum("ipd,jpd->ij", unit, unit) / int(has.sum())
    labels = pd.Index(["+".join(subset) for subset in subsets], name="subset")
    return pd.DataFrame(cosines.numpy(), index=labels, columns=labels)


def consistency_by_size(cosines: pd.DataFrame) -> pd.DataFrame:
    """Return the mean cosine of two different subsets by how many modalities each has.

    NaN where there is no such pair, as of two complete subsets.
    """
    sizes = np.array([name.count("+") + 1 for name in cosines.index])
    values = cosines.to_numpy(dtype=float, copy=True)
    np.fill_diagonal(values, np.nan)
    each = np.unique(sizes)
    table = np.full((len(each), len(each)), np.nan)
    for i, a in enumerate(each):
        for j, b in enumerate(each):
            pairs = values[np.ix_(sizes == a, sizes == b)]
            if np.isfinite(pairs).any():
                table[i, j] = np.nanmean(pairs)
    index = pd.Index(each, name="modalities")
    return pd.DataFrame(table, index=index, columns=index)


def save_consistency(cosines: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Write ``consistency.csv`` and ``consistency_by_size.csv``; return the latter's table."""
    by_size = consistency_by_size(cosines)
    for name, table in (("consistency", cosines), ("consistency_by_size", by_size)):
        with atomic(writable(folder) / f"{name}.csv") as path:
            table.to_csv(path)
    return by_size


def _modalities(
    model: "FittedModel", cohort: "Cohort", layout: "Layout", named: Collection[str] | None
) -> list[str]:
    """Return the modalities that are compared, in the model's order."""
    if named is not None:
        model.require_known(named)
        lacking = [name for name in named if name not in cohort]
        if lacking:
            raise DataError(f"the cohort has no modality '{lacking[0]}'")
        names = [name for name in layout.lengths if name in named]
    else:
        names = [n for n in layout.lengths if len(layout.grid(n)) == 3 and n in cohort]
    if not 2 <= len(names) <= MOST_MODALITIES:
        told = "modalities" if named is not None else "MRI sequences"
        raise DataError(
            f"consistency compares 2 to {MOST_MODALITIES} modalities, here are {len(names)} "
            f"{told}; name them in modalities"
        )
    return names
