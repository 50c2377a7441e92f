"""Judging models: any subset of modalities, beside baselines and two controls."""

from omnisurv.evaluation.classification import evaluate_classification
from omnisurv.evaluation.consistency import (
    consistency,
    consistency_by_size,
    save_consistency,
)
from omnisurv.evaluation.crossvalidation import cross_validate
from omnisurv.evaluation.curves import (
    HeldOutCurves,
    calibration_table,
    d_calibration_of,
    net_benefit,
    scores_over_time,
)
from omnisurv.evaluation.imputation import evaluate_imputation
from omnisurv.evaluation.judging import evaluate
from omnisurv.evaluation.scoring import Evaluation, Predictions
from omnisurv.evaluation.segmentation import compare_cases, evaluate_segmentation, read_cases
from omnisurv.evaluation.survival import evaluate_survival

__all__ = [
    "Evaluation",
    "HeldOutCurves",
    "Predictions",
    "calibration_table",
    "compare_cases",
    "consistency",
    "consistency_by_size",
    "cross_validate",
    "d_calibration_of",
    "evaluate",
    "evaluate_classification",
    "evaluate_imputation",
    "evaluate_segmentation",
    "evaluate_survival",
    "net_benefit",
    "read_cases",
    "save_consistency",
    "scores_over_time",
]
