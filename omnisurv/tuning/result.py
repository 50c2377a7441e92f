"""What a study found."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from omnisurv.config import replace
from omnisurv.errors import InputError
from omnisurv.evaluation.trials import Metric
from omnisurv.files import atomic, writable
from omnisurv.recipe import Recipe
from omnisurv.tasks.survival import SurvivalModel
from omnisurv.training import Progress, finetune, pretrain
from omnisurv.tuning.space import OWN, Space
from omnisurv.tuning.storage import superseded

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort


@dataclass(frozen=True)
class Tuned:
    """The best settings of a study, and how they were found.

    Attributes:
        study: Optuna's.
        recipe: settings that the search began with.
        space: what was searched.
        metrics: what was judged, in the order of the trials' values.
    """

    study: Study
    recipe: Recipe
    space: Space
    metrics: tuple[Metric, ...]

    @property
    def best_trial(self) -> FrozenTrial:
        """The best trial; with both metrics, that of the best CS-score ``(C + 1 − IBS) / 2``.

        Raises:
            InputError: no trial came to its end.
        """
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not done:
            raise InputError(f"no trial came to its end: {self._why()}")
        if len(self.metrics) == 1:
            return self.study.best_trial
        return max(done, key=lambda t: float(t.user_attrs["c_harrell"] - t.user_attrs["ibs"]))

    @property
    def settings(self) -> dict[str, Any]:
        """The best settings, by dotted name."""
        return self.space.tidy(self.best_trial.params)

    @property
    def best_recipe(self) -> Recipe:
        """The recipe with the best settings."""
        return replace(self.recipe, self.settings, "best trial")

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial: state, scores, settings, epochs trained, seconds, reason."""
        return pd.DataFrame([_row(trial) for trial in self._counted()]).set_index("trial")

    def summary(self) -> pd.DataFrame:
        """Return the scores and settings of the best trial beside those it began with."""
        first, own = self.start(), self.space.values(self.recipe)
        before = first.user_attrs if first is not None else {}
        best = {**self.best_trial.user_attrs, **self.settings}
        rows = {name: (best[name], {**before, **own}.get(name)) for name in [*self.metrics, *own]}
        text = {name: [_text(value) for value in pair] for name, pair in rows.items()}
        columns = ["best", "recipe's own"]
        table = pd.DataFrame.from_dict(text, orient="index", columns=columns)
        return table.rename_axis("setting").reset_index()

    def to_dict(self) -> dict[str, Any]:
        """Return the best settings, their scores and all trials as plain values, for JSON."""
        told = json.loads(self.trials.reset_index().to_json(orient="records"))
        return {
            "recipe": self.recipe.title,
            "set": self.settings,
            "trial": self.best_trial.number,
            "scores": {name: self.best_trial.user_attrs[name] for name in self.metrics},
            "trials": told,
        }

    def fit(
        self, dev: "Cohort", run: str | Path | None = None, progress: Progress | None = None
    ) -> SurvivalModel:
        """Pre-train and fine-tune with the best settings on all development patients.

        Args:
            dev: development patients.
            run: folder to write; ``pretrained`` in it is the run of the first stage.
            progress: called with (label, epoch, epochs, text).
        """
        first = None if run is None else Path(run) / "pretrained"
        start = pretrain(self.best_recipe, dev, run=first, progress=progress)
        model: SurvivalModel = finetune(start, dev, run=run, progress=progress)
        return model

    def save(self, folder: str | Path, command: str = "") -> Path:
        """Write ``best.yaml``, ``trials.csv`` and ``report.html``; return the page."""
        from omnisurv.tuning.page import study_page

        folder = writable(Path(folder))
        with atomic(folder / "best.yaml") as path:
            told = {"recipe": self.recipe.title, "set": self.settings}
            path.write_text(yaml.safe_dump(told, sort_keys=False))
        with atomic(folder / "trials.csv") as path:
            self.trials.to_csv(path)
        return study_page(folder, self, command)

    def start(self) -> FrozenTrial | None:
        """Return the trial of the recipe's own settings, if it came to its end."""
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return next((t for t in done if t.user_attrs.get("start") == OWN), None)

    def _counted(self) -> list[FrozenTrial]:
        found = self.study.get_trials(deepcopy=False)
        gone = superseded(found)
        return [t for t in found if t.number not in gone and t.state != TrialState.WAITING]

    def _why(self) -> str:
        reasons = [t.user_attrs.get("reason", t.state.name.lower()) for t in self._counted()]
        return f"{len(reasons)} trials, the first: {reasons[0]}" if reasons else "none was begun"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(trial: FrozenTrial) -> dict[str, Any]:
    attrs = trial.user_attrs
    took = trial.duration
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "c_harrell": attrs.get("c_harrell"),
        "ibs": attrs.get("ibs"),
        **trial.params,
        "epochs": attrs.get("epochs"),
        "seconds": None if took is None else round(took.total_seconds(), 1),
        "start": attrs.get("start", ""),
        "reason": attrs.get("reason", ""),
    }
