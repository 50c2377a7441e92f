"""A worker on a study whose folds wait instead of training; tests kill it."""

import itertools
import time

import omnisurv as om
from omnisurv.evaluation.trials import Reports
from omnisurv.tuning import objective, open_storage
from tests.tiny import recipe, simulated

NAME = "shared"
FOLDS = 2


def cohort():
    return simulated(patients=60).to_cohort()


def work(place, trials, seconds):
    """Tune with folds that take so many seconds each, those of the first two trials 0.3."""
    begun = itertools.count()

    def fit(self, recipe, train, test, source, progress=None):
        time.sleep(0.3 if next(begun) < 2 * FOLDS else seconds)
        self.epochs += 1
        return recipe

    def scores(recipe, train, test):
        return {"c_harrell": 0.7 - 0.001 * recipe.ridge, "ibs": 0.2}

    Reports.fit, objective.fold_scores = fit, scores
    storage = open_storage(place, heartbeat=1)
    return om.tune(recipe(), cohort(), trials=trials, folds=FOLDS, storage=storage, name=NAME)
