"""How good survival curves and imputed values are, in plain arrays.

Times are raw days, curves are (times, patients), risk is higher = worse. Every metric exists as
a function that returns its value and, through ``survival_scores`` and ``imputation_scores``, as
a ``Score`` from which ``estimate`` makes a value with a bootstrap interval, n and events, and
``difference`` a paired comparison of two models. What cannot be computed is NaN, with a reason.
"""

from omnisurv.metrics.auc import auc_cumulative_dynamic, auc_scores
from omnisurv.metrics.bootstrap import (
    Difference,
    Estimate,
    Score,
    average_scores,
    difference,
    estimate,
    patient_draws,
)
from omnisurv.metrics.calibration import (
    DCalibration,
    calibration_at,
    d_calibration,
)
from omnisurv.metrics.classification import classification_scores
from omnisurv.metrics.concordance import (
    concordance_antolini,
    concordance_harrell,
    concordance_uno,
)
from omnisurv.metrics.curves import (
    Curves,
    StepFunction,
    censoring_curve,
    horizon,
    kaplan_meier_curve,
)
from omnisurv.metrics.decision import net_benefit_scores
from omnisurv.metrics.imputation import (
    coverage,
    imputation_scores,
    mae,
    mse,
    pearson,
    r2,
    rmse,
)
from omnisurv.metrics.survival import (
    brier_score,
    brier_scores,
    cs_score,
    integrated_brier_score,
    survival_scores,
)

__all__ = [
    "Curves",
    "DCalibration",
    "Difference",
    "Estimate",
    "Score",
    "StepFunction",
    "auc_cumulative_dynamic",
    "auc_scores",
    "average_scores",
    "brier_score",
    "brier_scores",
    "calibration_at",
    "censoring_curve",
    "classification_scores",
    "concordance_antolini",
    "concordance_harrell",
    "concordance_uno",
    "coverage",
    "cs_score",
    "d_calibration",
    "difference",
    "estimate",
    "horizon",
    "imputation_scores",
    "integrated_brier_score",
    "kaplan_meier_curve",
    "mae",
    "mse",
    "net_benefit_scores",
    "patient_draws",
    "pearson",
    "r2",
    "rmse",
    "survival_scores",
]
