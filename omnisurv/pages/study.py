"""What the report page of a study says."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from omnisurv import plots
from omnisurv.evaluation import consistency_by_size
from omnisurv.metrics.names import NAMES
from omnisurv.report import Section, write_page
from omnisurv.study import ARMS, OURS, Study, main_metric, metrics_of

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

SAID = {
    "bm_mae": "pre-trained once by masking, fine-tuned once for all subsets",
    "scratch": "the same network without pre-training, trained once for all subsets",
    "stacked_mae": "pre-trained by masking sequences stacked as channels, for each subset anew",
    "simclr": "pre-trained by contrast on sequences stacked as channels, for each subset anew",
}
LAID_OUT = "Models beside each other under each metric; subset mean is over all of them."


def study_page(folder: str | Path, study: Study, cohort: "Cohort", command: str) -> Path:
    """Write the report of a study, tables laid out as in the paper."""
    sections = [section for task in study.results for section in _task_sections(study, task)]
    by_size = consistency_by_size(study.consistency)
    sections.append(
        Section(
            "Consistency of embeddings",
            "Cosine between what the pre-trained encoder makes of a patient from two subsets "
            "of sequences, centred; the mean over patients.",
            table=by_size.rename_axis(columns=None).reset_index(),
            figure=plots.consistency(study.consistency, by_size),
            alt="Heat map of cosines between subsets of sequences",
        )
    )
    lead = (
        f"{len(cohort)} patients: {study.trained} to train on, {study.judged} of the others, who "
        f"have all sequences, to judge. {' '.join(headline(study, task) for task in study.results)}"
    )
    return write_page(folder, "What pre-training adds", sections, lead, command)


def headline(study: Study, task: str) -> str:
    """Say on how many subsets ours is ahead of the others."""
    main = main_metric(task)
    means = study.table(task)[main].loc["mean"]
    told = ", ".join(f"{arm} {means[arm]:.3f}" for arm in means.index)
    ahead = []
    for arm in means.index.drop(OURS):
        wins, count = study.wins(task, str(arm))
        ahead.append(f"ahead of {arm} on {wins} of {count} subsets")
    beside = ", ".join(ahead) or "nothing to compare with"
    return f"{task.capitalize()}, {NAMES[main]} in the mean of all subsets: {told}; {beside}."


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Return a study's table with one row of headings."""
    return table.set_axis([" ".join(pair) for pair in table.columns], axis=1).reset_index()


def _task_sections(study: Study, task: str) -> list[Section]:
    result, main = study.results[task], main_metric(task)
    arms = [f"{arm}: {SAID[arm]}" for arm in ARMS if arm in set(result.table["model"])]
    sections = [
        Section(
            f"{task.capitalize()} from any subset",
            f"{headline(study, task)}\n\n{'. '.join(arms)}.",
            table=_flat(study.table(task)),
            figure=plots.arms(result.table, main),
            alt=f"Dots with intervals: {main} by subset of sequences and model",
            caption=f"{LAID_OUT} Intervals: 1,000-fold bootstrap over patients.",
        )
    ]
    pairs = result.differences
    if len(pairs):
        chosen = pairs[pairs["metric"].isin(metrics_of(task))]
        columns = ["against", "subset", "metric", "n", "value", "ci_low", "ci_high", "p"]
        sections.append(
            Section(
                f"{task.capitalize()}: paired differences",
                "Ours minus theirs on the same patients"
                + ("; p: Wilcoxon's signed-rank test." if task == "segmentation" else "."),
                table=chosen[columns],
            )
        )
    return sections
