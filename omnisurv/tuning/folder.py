"""A study read again from the folder that it left."""

from pathlib import Path

import optuna

from omnisurv.config import parse
from omnisurv.recipe import get_recipe
from omnisurv.tuning.result import Tuned
from omnisurv.tuning.space import Space
from omnisurv.tuning.storage import open_storage, quiet
from omnisurv.tuning.study import JOURNAL


def read_study(folder: str | Path) -> Tuned | None:
    """Return the latest study of a folder's journal; None if there is no journal."""
    file = Path(folder) / JOURNAL
    if not file.is_file():
        return None
    with quiet():
        storage = open_storage(str(file))
        name = optuna.get_all_study_summaries(storage)[-1].study_name
        study = optuna.load_study(study_name=name, storage=storage)
    told = study.user_attrs["omnisurv"]
    recipe = parse(type(get_recipe(told["recipe"]["name"])), told["recipe"], str(file))
    trials = study.get_trials(deepcopy=False)
    space = {name: kind for trial in trials for name, kind in trial.distributions.items()}
    return Tuned(study, recipe, Space(space), tuple(told["metrics"]))
