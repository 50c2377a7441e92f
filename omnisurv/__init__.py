"""omnisurv: multimodal survival analysis with missing data.

Everything is tokens, and missing is masked. The public names below are loaded on first use, so
that reading a spec or asking for help needs none of the heavy libraries.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnisurv.checkpoint import load, save
    from omnisurv.data.cohort import Cohort
    from omnisurv.data.spec import DataSpec
    from omnisurv.embedding import embed
    from omnisurv.estimator import SurvivalEstimator
    from omnisurv.evaluation import consistency, cross_validate, evaluate
    from omnisurv.explanation import attributions, modality_value, value_of_measuring
    from omnisurv.imputation import impute
    from omnisurv.recipe import get_recipe
    from omnisurv.simulation import simulate
    from omnisurv.training import finetune, pretrain
    from omnisurv.tuning import tune

# Threads that spin while they wait cost small networks most of their time on a busy machine.
# It is read when torch is first imported, so it has to stand here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

_HOMES = {
    "Cohort": "data.cohort",
    "DataSpec": "data.spec",
    "SurvivalEstimator": "estimator",
    "attributions": "explanation",
    "consistency": "evaluation",
    "cross_validate": "evaluation",
    "embed": "embedding",
    "evaluate": "evaluation",
    "finetune": "training",
    "get_recipe": "recipe",
    "impute": "imputation",
    "load": "checkpoint",
    "modality_value": "explanation",
    "pretrain": "training",
    "save": "checkpoint",
    "simulate": "simulation",
    "tune": "tuning",
    "value_of_measuring": "explanation",
}

__all__ = [
    "Cohort",
    "DataSpec",
    "SurvivalEstimator",
    "attributions",
    "consistency",
    "cross_validate",
    "embed",
    "evaluate",
    "finetune",
    "get_recipe",
    "impute",
    "load",
    "modality_value",
    "pretrain",
    "save",
    "simulate",
    "tune",
    "value_of_measuring",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"omnisurv.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'omnisurv' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
