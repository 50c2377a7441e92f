"""What a report page says of a segmentation model."""

from typing import TYPE_CHECKING

import pandas as pd

from omnisurv import plots
from omnisurv.data.regions import REGIONS
from omnisurv.report import Section

if TYPE_CHECKING:
    from omnisurv.evaluation import Evaluation

HEADLINE = "dice_mean"
REGION = {"ET": "enhancing tumour", "TC": "tumour core", "WT": "whole tumour"}


def is_of_tumours(result: "Evaluation") -> bool:
    """Return whether an evaluation is of label maps."""
    return HEADLINE in set(result.table["metric"])


def tumour_sections(result: "Evaluation") -> list[Section]:
    """Return what the evaluation of label maps found: scores by subset of sequences."""
    told = ", ".join(f"{short}: {REGION[short]}" for short in REGIONS)
    sections = [
        Section(
            "Overlap and distance",
            "One network on the whole volume of each patient, each time allowed to look at these "
            "sequences only, on the patients who have any of them; mean is over all combinations. "
            f"{told}. The null finds nothing.",
            table=_by_subset(result.table),
            caption="Dice: higher is better. HD95: 95th percentile Hausdorff distance in mm, "
            "lower is better. What is said of regions that a patient does not have is a "
            "convention, BraTS's own unless said otherwise. Every patient is in cases.csv.",
        ),
        Section(
            "Any subset of sequences",
            "Mean Dice of the three regions; intervals: 1,000-fold bootstrap over patients.",
            figure=plots.subset_table(result.table, HEADLINE, counted=""),
            alt="Dot plot of the mean Dice with intervals, by subset of sequences",
        ),
    ]
    if len(result.differences):
        chosen = result.differences[result.differences["metric"].str.startswith("dice_")]
        columns = ["against", "subset", "metric", "n", "value", "ci_low", "ci_high", "p"]
        sections.append(
            Section(
                "Paired differences in Dice",
                "Ours minus theirs on the same patients; p: Wilcoxon's signed-rank test.",
                table=chosen[columns],
            )
        )
    return sections


def tumour_headline(result: "Evaluation", title: str) -> str:
    """Say in one sentence how well tumours were outlined from all there is."""
    rows = result.table[
        (result.table["model"] == title)
        & (result.table["subset"] == "all")
        & (result.table["group"] == "all")
    ].set_index("metric")
    values = rows["value"].to_dict()
    dice = ", ".join(f"{region} {values[f'dice_{region}']:.3f}" for region in REGIONS)
    return f"Dice {dice} on {int(rows['n'].iloc[0])} patients."


def _by_subset(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model, subset and group, one column a metric."""
    wide = table.pivot_table(
        index=["model", "subset", "group", "n"], columns="metric", values="value", sort=False,
        dropna=False,
    )  # fmt: skip
    wide = wide.dropna(how="all").reset_index()
    return wide.sort_values("group", key=lambda group: group != "all", kind="stable")
