"""Tuning: a recipe's settings searched with Optuna on inner folds of the development patients."""

from omnisurv.tuning.result import Tuned
from omnisurv.tuning.space import Space, read_space
from omnisurv.tuning.storage import open_storage
from omnisurv.tuning.study import tune

__all__ = ["Space", "Tuned", "open_storage", "read_space", "tune"]
