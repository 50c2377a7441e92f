"""What measuring a missing modality would add: the predicted risk over draws of what it may be."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from omnisurv.core import Batch
from omnisurv.errors import InputError
from omnisurv.explanation.risk import require_survival, risk_by_chunks, risk_of, strata
from omnisurv.imputation import held_out_errors, reconstruct

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort
    from omnisurv.tasks.survival import SurvivalModel

LOW, HIGH = 0.05, 0.95
COLUMNS = ("risk", "expected", "change", "sd", "low", "high")


def value_of_measuring(
    model: "FittedModel", cohort: "Cohort", modality: str, *, draws: int = 50, seed: int = 0
) -> pd.DataFrame:
    """Return what measuring a modality may do to the predicted risk of those who lack it.

    The modality is imputed from what each patient has; draws are the imputed mean plus whole error
    vectors of patients held out of training, and enter the model as if they had been measured. A
    wide spread says that the result of the measurement would move the prediction, not that the
    prediction would be better: that is what ``modality_value(…, "permutation")`` tells.

    Args:
        model: a survival model.
        cohort: patients; those who have any of the modality are left out.
        modality: what would be measured.
        draws: per patient, at least 2.
        seed: of the draws.

    Returns:
        Patients × ``risk`` (from what there is), ``expected`` (mean risk over draws), ``change``
        (their difference), ``sd`` over draws, ``low`` and ``high`` (5 % and 95 % quantiles of the
        risk). Risks are logs of the cumulative hazard.

    Raises:
        InputError: no survival model, or fewer than 2 draws.
        DataError: the model does not know the modality, or has no held-out errors of it.
    """
    survival = require_survival(model)
    if draws < 2:
        raise InputError(f"draws: {draws} tells no spread; ask for at least 2")
    survival.require_known([modality])
    errors = held_out_errors(survival, modality, np.random.default_rng(seed))
    batch = survival.batch(cohort)
    lacking = ~batch.observed[:, batch.layout.slices[modality]].any(1)
    patients = cohort.patients[lacking.numpy()]
    if not len(patients):
        return pd.DataFrame(columns=list(COLUMNS), index=patients, dtype=float)
    part, stratum = batch.rows(lacking), strata(survival, cohort)[lacking]
    now = risk_by_chunks(survival, part, part.observed, stratum)
    chosen = np.random.default_rng([seed, 1]).integers(len(errors), size=(draws, len(part)))
    risks = np.full((draws, len(part)), np.nan)
    for rows in part.chunks():
        own = part.rows(rows).load()
        where = rows.numpy()
        risks[:, where] = _drawn(survival, own, stratum[rows], modality, errors, chosen[:, where])
    mean = risks.mean(axis=0)
    low, high = np.quantile(risks, [LOW, HIGH], axis=0)
    found = (now, mean, mean - now, risks.std(axis=0, ddof=1), low, high)
    return pd.DataFrame(dict(zip(COLUMNS, found, strict=True)), index=patients)


@torch.no_grad()
def _drawn(
    model: "SurvivalModel",
    batch: Batch,
    stratum: torch.Tensor,
    name: str,
    errors: NDArray[np.float32],
    chosen: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the risks (draws, b) with draws of the modality in its place."""
    mean = reconstruct(model, batch, name, batch.observed, LOW).mean
    # What no held-out patient had measured (the padding of the last patch) stays hidden.
    real = np.isfinite(model.residuals[name]).any(axis=0)
    risks = []
    for picked in chosen:
        values = np.where(real, mean - errors[picked], np.nan).astype(np.float32)
        measured = Batch({**batch.patches, name: torch.from_numpy(values)}, batch.layout)
        risks.append(risk_of(model, measured, measured.observed, stratum).numpy())
    return np.stack(risks)
