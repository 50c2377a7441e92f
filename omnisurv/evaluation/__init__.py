"""Judging models: any subset of modalities, beside baselines and two controls."""

from omnisurv.evaluation.crossvalidation import cross_validate
from omnisurv.evaluation.imputation import evaluate_imputation
from omnisurv.evaluation.scoring import Evaluation, Predictions
from omnisurv.evaluation.survival import evaluate, evaluate_survival

__all__ = [
    "Evaluation",
    "Predictions",
    "cross_validate",
    "evaluate",
    "evaluate_imputation",
    "evaluate_survival",
]
