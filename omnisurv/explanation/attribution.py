"""Which genes, probes, voxels and tiles a patient's risk rests on: integrated gradients."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from omnisurv.core import Batch
from omnisurv.core.batch import CHUNK
from omnisurv.errors import DataError, InputError
from omnisurv.explanation.risk import require_survival, risk_of, strata
from omnisurv.features import FeatureTokeniser
from omnisurv.pictures import PictureTokeniser
from omnisurv.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort
    from omnisurv.tasks.survival import SurvivalModel

MOST = 256
"""Rows that are differentiated at a time; of pictures fewer."""
MEDIAN = "median of the patient"


@dataclass(frozen=True)
class Attributions:
    """What each part of one modality adds to the predicted risk, compared with its mean.

    Attributes:
        modality: whose.
        values: tables: patients × features; slides: patients × tiles, numbered from 1, or
            features of prototypes; volumes: an array (patients, x, y, z) on the cube. NaN where
            nothing was measured. Positive raises the risk.
        risk: of each patient, from all there is.
        baseline: risk with every value of the modality at the mean of the training patients; the
            values of a patient sum to ``risk - baseline``.
    """

    modality: str
    values: "pd.DataFrame | NDArray[np.float32]"
    risk: "pd.Series[float]"
    baseline: "pd.Series[float]"


def attributions(
    model: "FittedModel", cohort: "Cohort", modality: str, *, steps: int = 32
) -> Attributions:
    """Attribute the risk of patients who have a modality to its features, voxels or tiles.

    Integrated gradients (Sundararajan et al. 2017) of the log cumulative hazard with respect to
    the values in standard units, from their mean (0) to what was measured, all other modalities as
    they are. It says what the model uses, not what causes the outcome.

    Args:
        model: a survival model.
        cohort: patients; those without the modality are left out.
        modality: whose values.
        steps: points of the path; more where values do not sum to the difference of risks.

    Raises:
        InputError: no survival model, or captum is not installed.
        DataError: the model does not know the modality, or nobody has it.
    """
    survival = require_survival(model)
    survival.require_known([modality])
    batch = survival.batch(cohort)
    having = batch.observed[:, batch.layout.slices[modality]].any(1)
    if not having.any():
        raise DataError(f"none of the {len(cohort)} patients has the modality '{modality}'")
    batch, stratum = batch.rows(having), strata(survival, cohort)[having]
    patients = cohort.patients[having.numpy()]
    parts = [
        _integrate(survival, batch.rows(rows).load(), stratum[rows], modality, steps)
        for rows in torch.arange(len(batch)).split(max(1, _rows(batch) // 4))
    ]
    values, risk, baseline = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Attributions(
        modality,
        placed(survival.tokenisers[modality], values, patients),
        pd.Series(risk, patients, name="risk"),
        pd.Series(baseline, patients, name="baseline"),
    )


def _rows(batch: Batch) -> int:
    """Return how many rows are differentiated at a time."""
    size = sum(batch.layout.lengths[n] * batch.layout.widths[n] for n in batch.layout.lengths)
    return max(1, min(MOST, CHUNK // max(size, 1)))


def _integrate(
    model: "SurvivalModel", batch: Batch, stratum: Int[Tensor, " b"], name: str, steps: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return attributions (b, l, p), risks and risks of the baseline of a loaded batch."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise InputError("attributions need captum: pip install 'omnisurv[explain]'") from None
    hole = batch.patches[name].isnan()

    def risk(values: Float[Tensor, "r l p"], rows: Int[Tensor, " r"]) -> Float[Tensor, " r"]:
        patches = {n: patch[rows] for n, patch in batch.patches.items()}
        patches[name] = values.masked_fill(hole[rows], torch.nan)
        return risk_of(model, Batch(patches, batch.layout), batch.observed[rows], stratum[rows])

    values, rows = batch.patches[name].masked_fill(hole, 0.0), torch.arange(len(batch))
    found = IntegratedGradients(risk).attribute(
        values,
        baselines=0.0,
        additional_forward_args=(rows,),
        n_steps=steps,
        internal_batch_size=max(_rows(batch), len(batch)),
    )
    with torch.no_grad():
        ends = risk(values, rows).numpy(), risk(torch.zeros_like(values), rows).numpy()
    return found.detach().masked_fill(hole, torch.nan).numpy(), *ends


def placed(
    tokeniser: Any, values: NDArray[Any], patients: pd.Index
) -> "pd.DataFrame | NDArray[np.float32]":
    """Return numbers of patches at the features, voxels or tiles they belong to.

    Those of one tile are summed, which is meant for attributions.
    """
    if isinstance(tokeniser, FeatureTokeniser):
        found = tokeniser.by_feature(values)
        names = [*tokeniser.features, MEDIAN][: found.shape[1]]
        return pd.DataFrame(found, patients, pd.Index(names, name="feature"))
    if not isinstance(tokeniser, PictureTokeniser):  # one named value for each number of a patch
        named = tokeniser.untokenise(values[:1], list(patients[:1])).var_names
        return pd.DataFrame(values.reshape(len(values), -1), patients, named)
    pictures = tokeniser.joined(values)
    if len(tokeniser.space) == 3:
        return pictures[:, 0, ..., 0]
    tiles = pictures.reshape(*pictures.shape[:2], -1)
    there = np.isfinite(tiles).any(axis=2)
    total = np.where(there, np.nansum(tiles, axis=2), np.nan)
    return pd.DataFrame(total, patients, pd.RangeIndex(1, total.shape[1] + 1, name="tile"))
