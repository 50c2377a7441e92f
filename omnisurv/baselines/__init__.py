"""What a new model has to beat, fitted on training patients alone.

Plain data frames in, plain data frames out, so that the same fold feeds a baseline and a model.
Every fit is deterministic given its seed, and says in ``notes`` what it had to give way on.
"""

from omnisurv.baselines.classification import CLASSIFICATION_BASELINES
from omnisurv.baselines.fitted import SurvivalBaseline
from omnisurv.baselines.imputation import IMPUTATION_BASELINES, ImputationBaseline
from omnisurv.baselines.survival import SURVIVAL_BASELINES

__all__ = [
    "CLASSIFICATION_BASELINES",
    "IMPUTATION_BASELINES",
    "SURVIVAL_BASELINES",
    "ImputationBaseline",
    "SurvivalBaseline",
]
