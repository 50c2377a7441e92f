"""What models and baselines are given: subsets of modalities, and plain tables of them."""

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from omnisurv.baselines.preparation import CLINICAL
from omnisurv.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort

Subsets = Literal["all", "each", "none"] | Sequence[Collection[str]]


def subsets_of(names: Sequence[str], subsets: Subsets) -> list[tuple[str, ...]]:
    """Return the combinations of modalities to evaluate, the complete one aside."""
    if subsets == "none":
        return []
    if subsets == "all":
        sizes = range(1, len(names))
        return [subset for size in sizes for subset in combinations(names, size)]
    if subsets == "each":
        alone = [(name,) for name in names]
        without = [tuple(n for n in names if n != name) for name in names]
        return list(dict.fromkeys([*alone, *without])) if len(names) > 1 else []
    for name in (name for subset in subsets for name in subset):
        if name not in names:
            raise DataError(
                f"subset: model and cohort share no modality '{name}'.{did_you_mean(name, names)}"
            )
    return [tuple(subset) for subset in subsets]


def views(
    model: "FittedModel", cohort: "Cohort", subsets: Subsets
) -> "Iterator[tuple[str, Cohort, tuple[str, ...] | None]]":
    """Yield each subset's name, whom it is judged on, and its modalities.

    First ``all`` (None): everything each patient has. A subset is judged on the patients who
    have any of it, and left out if nobody has.
    """
    yield "all", cohort, None
    names = [n for n in model.modalities if n in cohort.availability.columns]
    for subset in subsets_of(names, subsets):
        who = cohort.patients[cohort.availability[list(subset)].any(axis=1)]
        if len(who):
            yield "+".join(subset), cohort.subset(who), subset


def matrix(model: "FittedModel", cohort: "Cohort", names: Sequence[str]) -> pd.DataFrame:
    """Return patients × (block, feature) in the model's standard units; NaN where not measured.

    A modality is a block; those that the recipe reads as clinical are one, ``clinical``.
    Columns that nobody has are left out, and with them the padding of patches.
    """
    clinical = getattr(model.recipe, "linear", ())
    patches = model.batch(cohort).patches
    parts, columns = [np.empty((len(cohort), 0))], []
    for name in names:
        values = patches[name].flatten(1).numpy()
        measured = np.flatnonzero(np.isfinite(values).any(axis=0))
        parts.append(values[:, measured].astype(float))
        columns += [(CLINICAL if name in clinical else name, f"{name}:{i}") for i in measured]
    index = pd.MultiIndex.from_tuples(columns, names=["block", "feature"])
    return pd.DataFrame(np.hstack(parts), index=cohort.patients, columns=index)


def tables_of(model: "FittedModel", cohort: "Cohort", notes: list[str]) -> list[str]:
    """Return the modalities that baselines read, and note those that they do not."""
    there = [name for name in model.modalities if name in cohort]
    found = [name for name in there if hasattr(cohort[name], "var_names")]
    notes += [f"{name}: pictures, which no baseline reads" for name in there if name not in found]
    return found
