"""What the report pages say: figures and tables of an evaluation, an imputation, a cohort."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from omnisurv import plots
from omnisurv.evaluation.curves import (
    HeldOutCurves,
    calibration_table,
    d_calibration_of,
    net_benefit,
    scores_over_time,
)
from omnisurv.evaluation.imputation import hidden_values
from omnisurv.pages.label import is_of_label, label_headline, label_sections
from omnisurv.pages.tumour import is_of_tumours, tumour_headline, tumour_sections
from omnisurv.report import Section, write_page

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort
    from omnisurv.evaluation import Evaluation

SHOWN = ("c_harrell", "c_antolini", "c_uno", "ibs")
BESIDE = ("cox_clinical", "mask_only", "null")
"""Models that are drawn beside ours over time."""
BARE = {"null": "null (constant)", "mask_only": "mask only (what is missing)"}


def evaluation_page(
    folder: str | Path,
    result: "Evaluation",
    model: "FittedModel",
    cohort: "Cohort",
    command: str,
    more: Sequence[Section] = (),
) -> Path:
    """Write the report of an evaluation, of whichever task it was, with ``more`` before the end."""
    title = model.recipe.title
    sections = [
        *judged_sections(result, model, cohort),
        *cohort_sections(cohort, "Who was evaluated"),
        *more,
        *history_section(model),
        *notes_section(result.notes),
    ]
    lead = f"{title} on {len(cohort)} patients. {headline(result, title)}"
    return write_page(folder, "Evaluation", sections, lead, command)


def judged_sections(
    result: "Evaluation", model: "FittedModel", cohort: "Cohort | None"
) -> list[Section]:
    """Return what an evaluation found, of whichever task; less without the evaluated patients."""
    title = model.recipe.title
    if "c_harrell" in set(result.table["metric"]):
        return survival_sections(result, cohort and cohort.with_endpoint(), title)
    if is_of_label(result):
        return label_sections(result, title)
    if is_of_tumours(result):
        return tumour_sections(result)
    return list(imputation_sections(result, model, cohort))


def crossvalidation_page(
    folder: str | Path, result: "Evaluation", title: str, cohort: "Cohort", command: str
) -> Path:
    """Write the report of a cross-validation."""
    if is_of_label(result):
        judged = label_sections(result, title)
    else:
        judged = survival_sections(result, cohort, title, thirds=False)
    sections = [
        *judged,
        *cohort_sections(cohort),
        *notes_section(result.notes),
    ]
    lead = f"{title}, fitted again in each fold. {headline(result, title)}"
    return write_page(folder, "Cross-validation", sections, lead, command)


def cohort_sections(cohort: "Cohort", title: str = "Who has what") -> list[Section]:
    """Return the availability figure and the warnings of a cohort."""
    known = int(cohort.has_endpoint.sum())
    events = int((cohort.obs["event"][cohort.has_endpoint] == 1).sum())
    text = (
        f"{len(cohort)} patients, {known} with a usable endpoint, {events} of them with an event. "
        "Who was measured is seldom random: compare the event rates of the combinations."
    )
    died = cohort.obs["event"].where(cohort.has_endpoint) if known else None
    notes = "\n\n".join(f"• {line}." for line in cohort.warnings)
    figure = plots.availability(cohort.availability, died)
    table = cohort.summary().reset_index()
    return [Section(title, text, table=table, figure=figure, caption=notes)]


def survival_sections(
    result: "Evaluation", cohort: "Cohort | None", title: str, *, thirds: bool = True
) -> list[Section]:
    """Return what a survival evaluation found: scores, subsets, risk groups, differences.

    Args:
        result: of ``evaluate`` or ``cross_validate``.
        cohort: the evaluated patients; without them risk groups need the result's curves.
        title: the model's name in the table.
        thirds: whether to draw risk groups; models of different folds share no scale.
    """
    whole = result.table[result.table["subset"] == "all"]
    sections = [
        Section(
            "Discrimination and error",
            "Every model on the same patients. The null gives everybody the same curve; the "
            "mask-only model sees nothing but which modalities a patient has. A model that does "
            "not beat it within a class has learned the gaps, not the biology. Intervals: "
            "1,000-fold bootstrap over patients.",
            table=_wide(whole, SHOWN),
            caption="Harrell's, Antolini's and Uno's C: higher is better. ibs: integrated Brier "
            "score, lower is better.",
        )
    ]
    subsets = result.table["subset"].nunique()
    sections.append(
        Section(
            "Any subset of modalities" if subsets > 1 else "Beside the baselines",
            "One model, each time allowed to look at these modalities only, on the patients who "
            "have any of them."
            if subsets > 1
            else "",
            figure=plots.subset_table(result.table, "c_harrell"),
            alt="Dot plot of Harrell's C with intervals, by subset of modalities and by baseline",
        )
    )
    risk = result.predictions[title].dropna()
    ends = _endpoints(result, cohort)
    if thirds and ends is not None and len(risk) >= 6 and risk.nunique() >= 3:
        sections.append(_risk_groups(risk, ends))
    if result.curves is not None:
        sections += curve_sections(result.curves, title)
    if len(result.differences):
        c = result.differences[
            (result.differences["metric"] == "c_harrell") & (result.differences["subset"] == "all")
        ]
        sections.append(
            Section(
                "Paired differences in Harrell's C",
                "Ours minus theirs on the same resampled patients; above zero is in our favour.",
                table=c[["against", "group", "n", "events", "value", "ci_low", "ci_high", "p"]],
            )
        )
    return sections


def curve_sections(curves: HeldOutCurves, title: str) -> list[Section]:
    """Return calibration, scores over time and the decision curve of a model."""
    years = curves.years()
    beside = [title, *(name for name in BESIDE if name in curves.models)]
    at = years[len(years) // 2]
    acted = [name for name in beside if name != "null"]
    return [
        Section(
            "Calibration",
            "Do predicted risks come true? On the dashed line, as many patients of a group had the "
            "event as was predicted; the bars of the D-calibration histogram are level if that "
            "holds at all times together (a small p says that it does not).",
            figure=plots.calibration(
                calibration_table(curves, title, years), d_calibration_of(curves, title)
            ),
            alt="Observed against predicted risk by groups of patients, and D-calibration",
        ),
        Section(
            "Over time",
            "How well patients who had the event by a time are told from those who had not (AUC), "
            "and how far the predicted probabilities are off at that time (Brier score), beside "
            "the controls; weighted for censoring by the training patients' follow-up.",
            figure=plots.scores_over_time(scores_over_time(curves, beside)),
            alt="Time-dependent AUC and Brier score of the model, Cox, mask only and null",
        ),
        Section(
            "Decision curve",
            "What acting on all patients above a predicted risk is worth: true positives less "
            "false positives, these weighted by the odds of the risk at which one would act. A "
            "model is of use where its line is above both acting on everybody and on nobody.",
            figure=plots.decision_curve(net_benefit(curves, acted, at), at),
            alt="Net benefit of the model, Cox and mask only against the threshold",
            caption="Not weighed: harm and cost of whatever tells the risk. The null gives "
            "everybody the same risk, so it is one of the two grey lines.",
        ),
    ]


def _endpoints(result: "Evaluation", cohort: "Cohort | None") -> pd.DataFrame | None:
    """Return ``time`` and ``event`` of the evaluated patients; None where nothing has them."""
    if cohort is not None:
        return cohort.obs
    return None if result.curves is None else result.curves.endpoint.droplevel("fold")


def _risk_groups(risk: "pd.Series[float]", ends: pd.DataFrame) -> Section:
    """Return Kaplan–Meier curves of thirds of the predicted risk."""
    names = ["low risk", "medium risk", "high risk"]
    thirds = pd.qcut(risk.rank(method="first"), 3, labels=names)
    obs = ends.loc[risk.index]
    return Section(
        "Survival by predicted risk",
        "The evaluated patients in three equal groups by predicted risk.",
        figure=plots.kaplan_meier(obs["time"], obs["event"], thirds, colour="predicted risk"),
        alt="Kaplan–Meier curves of three risk groups with numbers at risk and log-rank p",
    )


def imputation_sections(
    result: "Evaluation", model: "FittedModel", cohort: "Cohort | None"
) -> Iterator[Section]:
    """Yield what an imputation evaluation found: scores, and each modality's scatter."""
    yield Section(
        "Imputation",
        "Each modality is hidden whole from patients who have it and predicted from their other "
        "modalities, in standard units, beside the mean, nearest neighbours and ridge.",
        table=_wide(result.table, ("r2", "pearson", "mse"),
                    ("modality", "model", "group", "n")),
        caption="coverage_90 in metrics.csv is the share of values inside the 90 % interval.",
    )  # fmt: skip
    scored = result.table["subset"].unique()
    if cohort is None:
        return
    for name in cohort.modalities:
        tabular = hasattr(cohort[name], "var_names")
        if name not in scored or name not in model.modalities or not tabular:
            continue
        truth, found = hidden_values(model, cohort, name)
        yield Section(
            f"Imputed {name}",
            "Each feature in its own standard units, so that r is not made by differences "
            "between features.",
            figure=plots.imputation_scatter(truth, found["mean"], found["low"], found["high"]),
            alt=f"Imputed against measured values of {name}, and the coverage of the intervals",
        )


def history_section(model: "FittedModel") -> list[Section]:
    """Return the training history of the first network, if it has one."""
    history = model.history
    if not len(history):
        return []
    first = history[history["member"] == 0] if "member" in history else history
    text = "" if len(first) == len(history) else "The first network of the ensemble."
    return [Section("Training history", text, figure=plots.history(first))]


def notes_section(notes: Sequence[str]) -> list[Section]:
    """Return what had to give way, if anything."""
    return [Section("Notes", "\n\n".join(notes))] if notes else []


def headline(result: "Evaluation", title: str, metric: str = "c_harrell") -> str:
    """Say in one sentence how the model did beside its controls."""
    if is_of_label(result):
        return label_headline(result, title)
    if is_of_tumours(result):
        return tumour_headline(result, title)
    rows = result.table[(result.table["metric"] == metric) & (result.table["subset"] == "all")]
    pooled = rows[rows["group"] == "all"].set_index("model")
    if title not in pooled.index:
        return ""
    ours = pooled.loc[title].to_dict()
    scores = pooled["value"].to_dict()
    others = [f"{BARE[name]} {scores[name]:.3f}" for name in BARE if name in scores]
    beside = f"; {', '.join(others)}" if others else ""
    return (
        f"Harrell's C {ours['value']:.3f} ({ours['ci_low']:.3f}–{ours['ci_high']:.3f}) on "
        f"{ours['n']} patients with {ours['events']} events{beside}."
    )


def _wide(
    table: pd.DataFrame,
    metrics: Sequence[str],
    keys: Sequence[str] = ("model", "group", "n", "events"),
) -> pd.DataFrame:
    """Return one row a model and group, one column a metric; the first with its interval."""
    chosen = table[table["metric"].isin(metrics)]
    wide = chosen.pivot_table(
        index=list(keys), columns="metric", values="value", sort=False, dropna=False
    )
    wide = wide.dropna(how="all").reindex(columns=[m for m in metrics if m in wide.columns])
    first = chosen[chosen["metric"] == metrics[0]].set_index(list(keys))
    bounds: Mapping[str, pd.Series] = {k: first[k] for k in ("ci_low", "ci_high")}
    for place, (name, bound) in enumerate(bounds.items(), start=1):
        wide.insert(place, name, bound)
    return wide.reset_index().sort_values("group", key=lambda g: g != "all", kind="stable")
