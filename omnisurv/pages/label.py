"""What a report page says of a model of a label, such as the subtype."""

from typing import TYPE_CHECKING

import pandas as pd

from omnisurv import plots
from omnisurv.evaluation.classcurves import class_curves
from omnisurv.evaluation.classification import LABEL
from omnisurv.metrics.names import NAMES
from omnisurv.report import Section

if TYPE_CHECKING:
    from omnisurv.evaluation import Evaluation

SHOWN = ("auc", "average_precision", "balanced_accuracy", "brier")
BESIDE = ("logistic_clinical", "mask_only")
"""Models that are drawn beside ours."""
BARE = {"null": "null (training shares)", "mask_only": "mask only (what is missing)"}


def label_sections(result: "Evaluation", title: str) -> list[Section]:
    """Return what the evaluation of a label found: scores, curves, subsets, differences.

    Args:
        result: of ``evaluate`` or ``cross_validate``.
        title: the model's name in the table.
    """
    there = set(result.table["model"])
    drawn = [title, *(name for name in BESIDE if name in there)]
    positive = positive_of(result, title)
    what = f"The positive class is {positive}." if positive else "Each class against the rest."
    differences = result.differences[
        (result.differences["metric"] == "auc") & (result.differences["subset"] == "all")
    ]
    return [
        Section(
            "Discrimination and error",
            f"Every model on the same patients. {what} The null gives everybody the training "
            "shares; the mask-only model sees nothing but which modalities a patient has. A model "
            "that does not beat it has learned the gaps, not the biology. Intervals: 1,000-fold "
            "bootstrap over patients.",
            table=scores(result.table, positive),
            caption="AUC, average precision and balanced accuracy: higher is better. Brier score: "
            "lower is better.",
        ),
        Section(
            "ROC and precision-recall",
            "Vertical means over folds where there are several. Dotted: chance.",
            figure=plots.class_curves(class_curves(result.predictions, drawn)),
            alt="ROC and precision-recall curves of the model with bands, logistic and mask only",
        ),
        Section(
            "Any subset of modalities",
            "One model, each time allowed to look at these modalities only, on the patients who "
            "have any of them.",
            figure=plots.subset_table(result.table, "auc", counted=positive or ""),
            alt="Dot plot of the AUC with intervals, by subset of modalities and by baseline",
        ),
        Section(
            "Paired differences in AUC",
            "Ours minus theirs on the same resampled patients; above zero is in our favour.",
            table=differences[["against", "group", "n", "value", "ci_low", "ci_high", "p"]],
        ),
    ]


def scores(table: pd.DataFrame, positive: str) -> pd.DataFrame:
    """Return one row a model and group, one column a metric; the AUC with its interval."""
    whole = table[table["subset"] == "all"]
    keys = ["model", "group"]
    rows = whole[whole["metric"] == "auc"][[*keys, "n", "events", "ci_low", "ci_high"]]
    for place, metric in enumerate(SHOWN):
        name = NAMES[metric]
        values = whole[whole["metric"] == metric].set_index(keys)["value"].rename(name)
        rows = rows.join(values, on=keys)
        if place == 0:
            rows = rows[[*keys, "n", "events", name, "ci_low", "ci_high"]]
    rows = rows.sort_values("group", key=lambda group: group != "all", kind="stable")
    return rows.rename(columns={"events": positive}) if positive else rows.drop(columns="events")


def label_headline(result: "Evaluation", title: str) -> str:
    """Say in one sentence how the model did beside its controls."""
    rows = result.table[(result.table["metric"] == "auc") & (result.table["subset"] == "all")]
    pooled = rows[rows["group"] == "all"].set_index("model")
    ours, values = pooled.loc[title].to_dict(), pooled["value"].to_dict()
    positive = positive_of(result, title)
    count = f", {int(ours['events'])} of them {positive}" if positive else ""
    others = [f"{BARE[name]} {values[name]:.3f}" for name in BARE if name in values]
    beside = f"; {', '.join(others)}" if others else ""
    return (
        f"AUC {ours['value']:.3f} ({ours['ci_low']:.3f}–{ours['ci_high']:.3f}) on "
        f"{ours['n']} patients{count}{beside}."
    )


def positive_of(result: "Evaluation", title: str) -> str:
    """Return the positive one of two classes; nothing where there are more."""
    start = f"{title}: "
    names = [str(c).removeprefix(start) for c in result.predictions if str(c).startswith(start)]
    return names[1] if len(names) == 2 else ""


def is_of_label(result: "Evaluation") -> bool:
    """Return whether an evaluation is of a label."""
    return LABEL in result.predictions
