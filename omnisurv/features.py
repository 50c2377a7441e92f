"""Tables of features as patches: which feature sits where, on which scale.

Shared by every modality that is patients × features (RNA, methylation, tables). All that is
fitted is a list of features, their place in the patches and one monotone scale for each, so
``untokenise`` is the exact inverse of ``tokenise``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.errors import DataError, SpecError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Shape = Literal["identity", "ln1p", "m-value"]
Order = Literal["file", "variance", "correlation", "chromosome"]

KNEE = 3.0
"""Standard units up to which a value is left (nearly) as it is; logarithmic beyond."""
LEAST_MEDIAN = 1e-3
"""A patient's median below this is taken for 1."""
BETA_OFFSET = 0.01
"""Keeps M-values finite at beta 0 and 1 without clipping (Du et al. 2010, alpha)."""


@dataclass(frozen=True)
class Scale:
    """Per-feature monotone scales: shape, robust standardisation, soft knee for heavy tails.

    ``by_patient`` divides each patient's shaped values by their own median first (impuTMAE's
    per-subject normalisation, §3); the median then travels as one more value, so that nothing
    is lost and an imputed patient gets a predicted one.
    """

    shape: Shape
    center: Floats
    spread: Floats
    knee: bool = True
    by_patient: bool = False

    def apply(self, values: Floats) -> Floats:
        """Return (n, f) raw values in standard units, (n, f + 1) with ``by_patient``."""
        shaped = _shape(values, self.shape)
        if self.by_patient:
            shaped = _divide_by_median(shaped)
        z = (shaped - self.center) / self.spread
        return KNEE * np.arcsinh(z / KNEE) if self.knee else z

    def invert(self, z: Floats) -> Floats:
        """Return raw values from standard units, the inverse of ``apply``."""
        z = np.asarray(z, dtype=float)
        if self.knee:
            # Far outside anything seen in training, a prediction is not worth an overflow.
            z = KNEE * np.sinh(np.clip(z / KNEE, -20.0, 20.0))
        shaped = z * self.spread + self.center
        if self.by_patient:
            shaped = shaped[:, :-1] * np.maximum(shaped[:, -1:], LEAST_MEDIAN)
        return _unshape(shaped, self.shape)


def fit_scale(
    values: Floats,
    shape: Shape,
    *,
    standardise: bool = True,
    knee: bool = True,
    by_patient: bool = False,
) -> Scale:
    """Fit the scale of each feature on training values (n, f); NaN is not measured.

    The spread is the standard deviation of values winsorised at five robust standard units, so one
    value of 3,500 neither blows up the scale nor is thrown away.
    """
    shaped = _shape(values, shape)
    if by_patient:
        shaped = _divide_by_median(shaped)
    features = shaped.shape[1]
    if not standardise:
        return Scale(shape, np.zeros(features), np.ones(features), False, by_patient)
    center = _quantile(shaped, 0.5)
    sd = _positive(np.nan_to_num(_nan_sd(shaped)), np.ones(features))
    if knee:
        iqr = (_quantile(shaped, 0.75) - _quantile(shaped, 0.25)) / 1.349
        rough = _positive(iqr, sd)
        soft = np.clip((shaped - center) / rough, -5.0, 5.0)
        with np.errstate(invalid="ignore"):
            mean = np.nan_to_num(_nan_mean(soft))
        center = center + rough * mean
        sd = rough * _positive(np.nan_to_num(_nan_sd(soft)), np.ones(features))
    else:
        center = np.nan_to_num(_nan_mean(shaped))
    return Scale(shape, np.nan_to_num(center), sd, knee, by_patient)


class FeatureTokeniser:
    """Place scaled features in patches of a fixed width; what is not measured stays NaN."""

    def __init__(
        self, features: Sequence[str], groups: Sequence[Sequence[int]], scale: Scale, unit: str
    ) -> None:
        self.features = list(features)
        self.groups = [list(group) for group in groups]
        self.scale = scale
        self.unit = unit
        self.length = len(self.groups)
        self.grid: tuple[int, ...] = (self.length,)
        self.width = max(len(group) for group in self.groups)
        self._slot = _slots(self.groups, self.width)

    def tokenise(self, data: "AnnData") -> NDArray[np.float32]:
        """Return patches (n, l, p) in standard units; features the cohort lacks are NaN."""
        if data.uns.get("scale", self.unit) != self.unit:
            raise DataError(
                f"values are on the scale '{data.uns['scale']}', the model was fitted on "
                f"'{self.unit}'; give the same kind of table or say `scale:` in the spec"
            )
        values = self._align(data)
        z = self.scale.apply(values)
        padded = np.concatenate([z, np.full((len(z), 1), np.nan)], axis=1)
        return padded[:, self._slot].astype(np.float32)

    def untokenise(self, patches: NDArray[Any], patients: Sequence[str]) -> "AnnData":
        """Return values in the modality's own unit, features in the tokeniser's order."""
        import anndata

        values = self.scale.invert(self.by_feature(patches)).astype(np.float32)
        obs = pd.DataFrame(index=pd.Index([str(p) for p in patients], name="patient"))
        var = pd.DataFrame(index=pd.Index(self.features, name="feature"))
        return anndata.AnnData(values, obs=obs, var=var, uns={"scale": self.unit})

    def by_feature(self, patches: NDArray[Any]) -> Floats:
        """Return the numbers of patches in the order of the features, as they stand, (n, f).

        Where each patient's median travels along, it is one more column.
        """
        z = np.full((len(patches), self._slot.max() + 1), np.nan)
        flat = np.asarray(patches, dtype=float).reshape(len(patches), -1)
        real = self._slot.ravel() >= 0
        z[:, self._slot.ravel()[real]] = flat[:, real]
        return z

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return all that was fitted."""
        settings = {
            "features": self.features,
            "groups": self.groups,
            "unit": self.unit,
            "shape": self.scale.shape,
            "knee": self.scale.knee,
            "by_patient": self.scale.by_patient,
        }
        return settings, {"center": self.scale.center, "spread": self.scale.spread}

    @classmethod
    def restore(cls, state: tuple[dict[str, Any], dict[str, NDArray[Any]]]) -> "FeatureTokeniser":
        """Rebuild the tokeniser from its state."""
        settings, arrays = state
        scale = Scale(
            settings["shape"],
            arrays["center"],
            arrays["spread"],
            settings["knee"],
            settings["by_patient"],
        )
        return cls(settings["features"], settings["groups"], scale, settings["unit"])

    def _align(self, data: "AnnData") -> Floats:
        columns = data.var_names.get_indexer(pd.Index(self.features))
        known = columns >= 0
        if not known.any():
            theirs, ours = list(data.var_names[:2]), self.features[:2]
            raise DataError(
                f"no feature of the table is one the model knows (table: {theirs}, "
                f"model: {ours}); use the same feature names"
            )
        values = np.full((data.n_obs, len(self.features)), np.nan)
        values[:, known] = np.asarray(data.X, dtype=float)[:, columns[known]]
        return values


def keep_features(
    data: "AnnData",
    *,
    min_sd: float = 0.0,
    max_missing: float = 0.5,
    top_variance: int | None = None,
) -> NDArray[np.int64]:
    """Return the columns worth a place, in file order, judged on training values alone."""
    values = np.asarray(data.X, dtype=float)
    missing = np.isnan(values).mean(0)
    sd = np.nan_to_num(_nan_sd(values))
    chosen = np.flatnonzero((sd > min_sd) & (missing <= max_missing))
    if not len(chosen):
        raise DataError(
            f"no feature is left of {data.n_vars}: all have a standard deviation ≤ {min_sd} or "
            f"are missing in more than {max_missing:.0%} of the training patients; lower "
            "`min_sd` or raise `max_missing`"
        )
    if top_variance is not None and len(chosen) > top_variance:
        best = np.argsort(-sd[chosen], kind="stable")[:top_variance]
        chosen = np.sort(chosen[best])
    return chosen


def order_features(data: "AnnData", order: Order) -> NDArray[np.int64]:
    """Return the order in which features are laid into patches.

    ``file`` keeps the table's; ``variance`` puts the most variable first; ``correlation`` puts
    correlated features side by side (average linkage on 1 − |r|); ``chromosome`` follows the
    genome (needs ``chromosome`` and ``start`` columns).
    """
    if order == "file":
        return np.arange(data.n_vars)
    values = np.asarray(data.X, dtype=float)
    if order == "variance":
        return np.argsort(-np.nan_to_num(_nan_sd(values)), kind="stable")
    if order == "chromosome":
        missing = {"chromosome", "start"} - set(data.var.columns)
        if missing:
            raise SpecError(
                f"order: chromosome needs the feature columns {sorted(missing)}; "
                "use order: file, or a table that has them"
            )
        return np.lexsort((data.var["start"].to_numpy(), data.var["chromosome"].astype(str)))
    return _correlation_order(values)


def choose_features(
    train: "AnnData",
    order: Order,
    *,
    min_sd: float,
    max_missing: float,
    top_variance: int | None,
) -> "AnnData":
    """Return the columns worth a place, in the order they are laid into patches."""
    columns = keep_features(
        train, min_sd=min_sd, max_missing=max_missing, top_variance=top_variance
    )
    kept = train[:, columns]
    return kept[:, order_features(kept, order)]


def chunk(features: int, width: int) -> list[list[int]]:
    """Return consecutive groups of ``width`` features; the last may be shorter."""
    return [list(range(i, min(i + width, features))) for i in range(0, features, width)]


def _correlation_order(values: Floats) -> NDArray[np.int64]:
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if values.shape[1] < 3:
        return np.arange(values.shape[1])
    ranks = pd.DataFrame(values).rank().fillna(len(values) / 2).to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.nan_to_num(np.corrcoef(ranks, rowvar=False))
    distance = np.clip(1.0 - np.abs(correlation), 0.0, 1.0)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), method="average")
    return np.asarray(leaves_list(tree), dtype=np.int64)


def _slots(groups: Sequence[Sequence[int]], width: int) -> NDArray[np.int64]:
    slot = np.full((len(groups), width), -1, dtype=np.int64)
    for row, group in enumerate(groups):
        slot[row, : len(group)] = group
    return slot


def _shape(values: Floats, shape: Shape) -> Floats:
    if shape == "ln1p":
        return np.log1p(np.maximum(values, 0.0))
    if shape == "m-value":
        beta = np.clip(values, 0.0, 1.0)
        return np.log2((beta + BETA_OFFSET) / (1.0 - beta + BETA_OFFSET))
    return np.asarray(values, dtype=float)


def _unshape(shaped: Floats, shape: Shape) -> Floats:
    if shape == "ln1p":
        return np.expm1(np.clip(shaped, 0.0, 80.0))
    if shape == "m-value":
        odds = np.exp2(np.clip(shaped, -60.0, 60.0))
        beta = (odds * (1.0 + BETA_OFFSET) - BETA_OFFSET) / (1.0 + odds)
        return np.clip(beta, 0.0, 1.0)
    return shaped


def _divide_by_median(shaped: Floats) -> Floats:
    median = np.array(
        [[np.nanmedian(row)] if np.isfinite(row).any() else [np.nan] for row in shaped]
    )
    median = np.where(median < LEAST_MEDIAN, 1.0, median)  # as impuTMAE does for zeros
    return np.concatenate([shaped / median, median], axis=1)


def _quantile(values: Floats, q: float) -> Floats:
    frame = pd.DataFrame(values)
    return np.asarray(frame.quantile(q), dtype=float)


def _nan_mean(values: Floats) -> Floats:
    return np.asarray(pd.DataFrame(values).mean(), dtype=float)


def _nan_sd(values: Floats) -> Floats:
    return np.asarray(pd.DataFrame(values).std(ddof=0), dtype=float)


def _positive(value: Floats, otherwise: Floats) -> Floats:
    return np.where(np.isfinite(value) & (value > 1e-8), value, otherwise)
