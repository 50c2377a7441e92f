"""The report page of a study: what was found, how the search went, every trial."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState

from omnisurv.metrics.names import NAMES
from omnisurv.report import Section, write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from omnisurv.tuning.result import Tuned

WORDS = {"complete": "came to their end", "pruned": "were pruned", "fail": "failed"}


def study_page(folder: str | Path, tuned: "Tuned", command: str = "") -> Path:
    """Write ``report.html`` of a study into its folder, and the figures; return the page."""
    sections = study_sections(tuned)
    return write_page(folder, f"Tuning {tuned.recipe.title}", sections, study_lead(tuned), command)


def study_sections(tuned: "Tuned") -> list[Section]:
    """Return what a study found, how the search went, and every trial."""
    return [_best(tuned), *_figures(tuned), _trials(tuned)]


def study_lead(tuned: "Tuned") -> str:
    """Say how many trials there were and what the best is."""
    best, first, states = tuned.best_trial, tuned.start(), Counter(tuned.trials["state"])
    counts = ", ".join(f"{states[state]} {word}" for state, word in WORDS.items() if states[state])
    found = ", ".join(
        f"{NAMES[metric]} {best.user_attrs[metric]:.3f}"
        + (f" (the recipe's own settings: {first.user_attrs[metric]:.3f})" if first else "")
        for metric in tuned.metrics
    )
    return (
        f"{len(tuned.trials)} trials: {counts}. The best is number {best.number}: {found}, means "
        "over the inner folds. It is the best of many on the same patients and so too good; "
        "what it is worth, patients have to say who were not tuned on."
    )


def _best(tuned: "Tuned") -> Section:
    chosen = "" if len(tuned.metrics) == 1 else " It is the front's best (C + 1 − IBS) / 2."
    return Section(
        "Best settings",
        f"Trial {tuned.best_trial.number} beside the settings that the search began with.{chosen}",
        table=tuned.summary(),
    )


def _trials(tuned: "Tuned") -> Section:
    return Section(
        "Every trial",
        "Epochs are those that were trained: none where a pre-training was shared. A pruned or "
        "failed trial has no score; its reason stands beside it.",
        table=tuned.trials.reset_index(),
    )


def _figures(tuned: "Tuned") -> Iterator[Section]:
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization import matplotlib as drawn

    forest = FanovaImportanceEvaluator(seed=0)
    complete = tuned.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    for place, metric in enumerate(tuned.metrics):
        name = NAMES[metric]
        told = {
            "target": (lambda trial, place=place: trial.values[place]), "target_name": name
        } if len(tuned.metrics) > 1 else {"target_name": name}  # fmt: skip
        yield Section(
            f"History: {name}",
            "Each trial's value, and the best so far.",
            figure=_draw(drawn.plot_optimization_history, tuned, **told),
        )
        apart = len({trial.values[place] for trial in complete}) > 1
        if len(complete) < 4 or len(tuned.space.distributions) < 2 or not apart:
            continue
        yield Section(
            f"Importance: {name}",
            "Which settings the value hangs on, by the variance that each explains in a random "
            "forest of the trials (fANOVA). Of few trials it says little.",
            figure=_draw(drawn.plot_param_importances, tuned, evaluator=forest, **told),
        )
        yield Section(
            f"Slices: {name}",
            "The value against each setting.",
            figure=_draw(drawn.plot_slice, tuned, **told),
        )
    if len(tuned.metrics) > 1:
        names = [NAMES[metric] for metric in tuned.metrics]
        figure = _draw(drawn.plot_pareto_front, tuned, target_names=names)
        yield Section("Front", "Trials that no other beats in both scores.", figure=figure)


def _draw(plot: Callable[..., Any], tuned: "Tuned", **told: Any) -> "Figure":
    """Draw with Optuna, and leave pyplot as it was."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    # Optuna sets a style for the whole session and leaves its figures open.
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        axes = plot(tuned.study, **told)
        figure: Figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
        plt.close(figure)
    return figure
