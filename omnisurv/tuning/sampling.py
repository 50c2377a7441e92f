"""A sampler whose draws depend on the trial's number alone, not on who draws or how often."""

from collections.abc import Callable, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState


class NumberedSampler(BaseSampler):
    """Gives every trial a sampler seeded by its number.

    With one seed, workers on one study would otherwise draw the same trials, and a resumed
    study would begin its draws again.

    Args:
        seed: of the study.
        make: returns the sampler of a seed.
    """

    def __init__(self, seed: int, make: Callable[[int], BaseSampler]) -> None:
        self._seed, self._make = seed, make
        self._current = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed what draws for this trial."""
        self._current = self._make(self._seed * 100_003 + trial.number)
        self._current.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return what is drawn jointly."""
        return self._current.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw jointly."""
        return self._current.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one setting."""
        return self._current.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the sampler how the trial ended."""
        self._current.after_trial(study, trial, state, values)


def tpe(seed: int) -> NumberedSampler:
    """Return Optuna's tree-structured Parzen estimator, seeded by trial."""
    return NumberedSampler(seed, lambda own: TPESampler(seed=own % 2**32))
