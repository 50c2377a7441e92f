"""Filling and scaling of a patients × features table, learned on training patients."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from omnisurv.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float64]

CLINICAL = "clinical"
STRATUM = "stratum"
"""Blocks, the upper level of a table's columns; any other is a modality."""

_EXTREME = 10.0  # training standard deviations beyond which a value is cut off


def block(X: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the columns of one block under their own names, none if there is no such block."""
    return X.loc[:, X.columns.get_level_values(0) == name].droplevel(0, axis=1)


def numeric(X: pd.DataFrame) -> Floats:
    """Return the values as float, infinities as NaN.

    Raises:
        DataError: if a column holds texts.
    """
    texts = [str(c) for c, kind in zip(X.columns, X.dtypes, strict=True) if kind.kind not in "biuf"]
    if texts:
        raise DataError(
            f"baselines take numbers, but column '{texts[0]}' holds other values; "
            "encode categories as 0/1 columns first"
        )
    values = X.to_numpy(dtype=float, copy=True)
    values[~np.isfinite(values)] = np.nan
    return values


@dataclass(frozen=True)
class Scaling:
    """Fill, centre and scale, as fitted.

    Attributes:
        columns: those kept: measured in training and not constant there.
        fill: value for what is missing: the most frequent of a two-valued column, else the
            median (or the mean, as asked).
        centre: mean after filling.
        scale: standard deviation after filling.
    """

    columns: pd.Index
    fill: Floats
    centre: Floats
    scale: Floats

    @classmethod
    def fit(cls, X: pd.DataFrame, fill_mean: bool = False) -> "Scaling":
        """Learn from training patients (rows)."""
        if not X.columns.is_unique:
            twice = X.columns[X.columns.duplicated()][0]
            raise DataError(f"two columns are called '{twice}'; put the modality in their names")
        values = numeric(X)
        measured = np.flatnonzero(np.isfinite(values).any(axis=0))
        columns, values = X.columns[measured], values[:, measured]
        fill = np.nanmean(values, axis=0) if fill_mean else _typical(values)
        filled = np.where(np.isfinite(values), values, fill)
        centre, scale = filled.mean(axis=0), filled.std(axis=0)
        kept = np.flatnonzero(scale > 1e-9 * np.maximum(np.abs(centre), 1e-3))
        return cls(columns[kept], fill[kept], centre[kept], scale[kept])

    def apply(self, X: pd.DataFrame) -> Floats:
        """Return (n, kept columns); a column that ``X`` lacks is missing for everybody."""
        values = numeric(X.reindex(columns=self.columns))
        filled = np.where(np.isfinite(values), values, self.fill)
        return np.clip((filled - self.centre) / self.scale, -_EXTREME, _EXTREME)


def _typical(values: Floats) -> Floats:
    median = np.nanmedian(values, axis=0) if values.size else np.zeros(values.shape[1])
    low, high = (
        (f(values, axis=0) for f in (np.nanmin, np.nanmax)) if values.size else (median,) * 2
    )
    two_valued = ((values == low) | (values == high) | np.isnan(values)).all(axis=0)
    mostly_high = np.nansum(values == high, axis=0) > np.nansum(values == low, axis=0)
    typical: Floats = np.where(two_valued, np.where(mostly_high, high, low), median)
    return typical
