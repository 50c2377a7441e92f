"""What a cohort is checked for when it is made, whoever made it."""

from typing import Any

import numpy as np
import pandas as pd

from omnisurv.data.audit import some
from omnisurv.data.images import Data, Images
from omnisurv.errors import DataError


def check_obs(obs: pd.DataFrame) -> pd.DataFrame:
    """Return patients in order with ``time`` and ``event``; raise DataError if they cannot be."""
    checked = obs.copy()
    checked.index = pd.Index(obs.index.astype(str), name="patient", dtype=object)
    twice = checked.index[checked.index.duplicated()].unique()
    if len(twice):
        raise DataError(f"{len(twice)} patients have more than one row: {some(twice)}; keep one")
    for name in ("time", "event"):
        checked[name] = pd.Series(checked.get(name, np.nan), index=checked.index, dtype=float)
    wrong = checked.index[~checked["event"].isin([0.0, 1.0]) & checked["event"].notna()]
    if len(wrong):
        raise DataError(f"event must be 0, 1 or missing; it is not for {some(wrong)}")
    rest = [name for name in checked if name not in ("time", "event")]
    return checked[["time", "event", *rest]].sort_index()


def check_data(name: str, data: Data, patients: pd.Index) -> Data:
    """Return the modality in cohort order, float32; raise DataError if it cannot be used."""
    names = check_names(f"modality '{name}'", data, patients)
    if isinstance(data, Images):
        return data[names.argsort()]
    values = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    values = values.astype(np.float32, copy=False)
    infinite = np.isinf(values)
    if infinite.any():
        columns = data.var_names[infinite.any(axis=0)]
        raise DataError(
            f"modality '{name}' has {int(infinite.sum())} infinite values, in {some(columns)}; "
            "make NaN of what was not measured"
        )
    order = names.argsort()
    tidy = bool((order == np.arange(len(order))).all())
    if tidy and values is data.X:
        return data
    fixed = data.copy()
    fixed.X = values.copy() if values is data.X else values
    return fixed if tidy else fixed[order].copy()


def check_names(what: str, data: Data, patients: pd.Index) -> pd.Index:
    """Return whose values they are; raise DataError if one is there twice, or not in ``obs``."""
    names = pd.Index(data.obs_names.astype(str), dtype=object)
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise DataError(f"{what} has more than one row of {some(twice)}; keep one")
    unknown = names.difference(patients)
    if len(unknown):
        raise DataError(f"{what} has patients that obs lacks: {some(unknown)}")
    return names


def missing_share(data: Data) -> float:
    """Return the share of values not measured in patients who have the modality."""
    if isinstance(data, Images):
        return 0.0 if len(data) else np.nan
    return float(np.isnan(data.X).mean()) if data.X.size else np.nan


def availability_of(modalities: dict[str, Data], patients: pd.Index) -> pd.DataFrame:
    """Return patients × modalities, True where the patient has at least one value."""
    table: dict[str, Any] = {}
    for name, data in modalities.items():
        has = True if isinstance(data, Images) else np.isfinite(data.X).any(axis=1)
        measured = pd.Series(has, index=data.obs_names)
        table[name] = measured.reindex(patients, fill_value=False).to_numpy(dtype=bool)
    return pd.DataFrame(table, index=patients, dtype=bool)
