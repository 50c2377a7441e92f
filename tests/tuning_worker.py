"""A worker on a study whose folds wait instead of training: python -m tests.tuning_worker URL N S.

It is killed by the tests of dead workers, so it is a process of its own.
"""

import sys
import time

import omnisurv as om
from omnisurv.evaluation.trials import Reports
from omnisurv.tuning import objective, open_storage
from tests.tiny import recipe, simulated

NAME = "shared"


def cohort():
    return simulated(patients=60).to_cohort()


def work(place, trials, seconds):
    """Tune with folds that take so many seconds each."""

    def fit(self, recipe, train, test, source, progress=None):
        time.sleep(seconds)
        self.epochs += 1
        return recipe

    def scores(recipe, train, test):
        return {"c_harrell": 0.7 - 0.001 * recipe.ridge, "ibs": 0.2}

    Reports.fit, objective.fold_scores = fit, scores
    storage = open_storage(place, heartbeat=1)
    return om.tune(recipe(), cohort(), trials=trials, folds=2, storage=storage, name=NAME)


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
