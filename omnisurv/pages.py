"""What the report pages say: figures and tables of an evaluation, an imputation, a cohort."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv import plots
from omnisurv.files import atomic, writable
from omnisurv.imputation import impute
from omnisurv.report import Section, write_report

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort
    from omnisurv.evaluation import Evaluation

SHOWN = ("c_harrell", "c_antolini", "c_uno", "ibs")
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
    if "c_harrell" in set(result.table["metric"]):
        judged = survival_sections(result, cohort.with_endpoint(), title)
    else:
        judged = list(imputation_sections(result, model, cohort))
    sections = [
        *judged,
        *cohort_sections(cohort, "Who was evaluated"),
        *more,
        *history_section(model),
        *notes_section(result.notes),
    ]
    lead = f"{title} on {len(cohort)} patients. {headline(result, title)}"
    return write_page(folder, "Evaluation", sections, lead, command)


def crossvalidation_page(
    folder: str | Path, result: "Evaluation", title: str, cohort: "Cohort", command: str
) -> Path:
    """Write the report of a cross-validation."""
    sections = [
        *survival_sections(result, cohort, title, thirds=False),
        *cohort_sections(cohort),
        *notes_section(result.notes),
    ]
    lead = f"{title}, fitted again in each fold. {headline(result, title)}"
    return write_page(folder, "Cross-validation", sections, lead, command)


def write_page(
    folder: str | Path, title: str, sections: Sequence[Section], lead: str, command: str
) -> Path:
    """Write ``report.html`` and each figure as ``figures/NAME.svg``; return the page."""
    folder = writable(Path(folder))
    figures = writable(folder / "figures")
    for section in sections:
        if section.figure is not None:
            name = "".join(c if c.isalnum() else "_" for c in section.title.lower())
            with atomic(figures / f"{name}.svg") as path, plots.style():
                section.figure.savefig(path, format="svg", metadata={"Date": None})
    path = folder / "report.html"
    return write_report(path, title=title, sections=sections, lead=lead, command=command)


def cohort_sections(cohort: "Cohort", title: str = "Who has what") -> list[Section]:
    """Return the availability figure and the warnings of a cohort."""
    known = int(cohort.has_endpoint.sum())
    events = int((cohort.obs["event"][cohort.has_endpoint] == 1).sum())
    text = (
        f"{len(cohort)} patients, {known} with a usable endpoint, {events} of them with an event. "
        "Who was measured is seldom random: compare the event rates of the combinations."
    )
    died = cohort.obs["event"].where(cohort.has_endpoint) if known else None
    notes = " ".join(f"• {line}." for line in cohort.warnings)
    figure = plots.availability(cohort.availability, died)
    table = cohort.summary().reset_index()
    return [Section(title, text, table=table, figure=figure, caption=notes)]


def survival_sections(
    result: "Evaluation", cohort: "Cohort", title: str, *, thirds: bool = True
) -> list[Section]:
    """Return what a survival evaluation found: scores, subsets, risk groups, differences.

    Args:
        result: of ``evaluate`` or ``cross_validate``.
        cohort: the evaluated patients.
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
    if thirds and len(risk) >= 6 and risk.nunique() >= 3:
        sections.append(_risk_groups(risk, cohort))
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


def _risk_groups(risk: "pd.Series[float]", cohort: "Cohort") -> Section:
    """Return Kaplan–Meier curves of thirds of the predicted risk."""
    names = ["low risk", "medium risk", "high risk"]
    thirds = pd.qcut(risk.rank(method="first"), 3, labels=names)
    obs = cohort.obs.loc[risk.index]
    return Section(
        "Survival by predicted risk",
        "The evaluated patients in three equal groups by predicted risk.",
        figure=plots.kaplan_meier(obs["time"], obs["event"], thirds, colour="predicted risk"),
        alt="Kaplan–Meier curves of three risk groups with numbers at risk and log-rank p",
    )


def imputation_sections(
    result: "Evaluation", model: "FittedModel", cohort: "Cohort"
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


def hidden_values(
    model: "FittedModel", cohort: "Cohort", name: str
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return a modality's measured values and what is imputed for them from the others.

    Raw expression is logged; then each feature is standardised by its measured values.
    """
    others = cohort.drop_modalities([name])
    who = cohort.patients[cohort.availability[name] & others.availability.any(axis=1)]
    data = impute(model, others.subset(who), [name]).values[name]
    index, columns = data.obs_names, data.var_names
    own = cohort[name]
    logged = own.uns.get("scale") in ("linear", "counts")
    frames = {"mean": data.X, "low": data.layers["low"], "high": data.layers["high"]}
    found = {k: pd.DataFrame(v, index=index, columns=columns) for k, v in frames.items()}
    truth = pd.DataFrame(own.X, index=own.obs_names, columns=own.var_names)
    truth = truth.reindex(index=index, columns=columns)
    if logged:
        truth, found = _logged(truth), {k: _logged(v) for k, v in found.items()}
    centre, spread = truth.mean(), truth.std()
    varied = spread.index[spread > 0]
    return (
        ((truth - centre) / spread)[varied],
        {k: ((v - centre) / spread)[varied] for k, v in found.items()},
    )


def _logged(values: pd.DataFrame) -> pd.DataFrame:
    logs = np.log1p(values.clip(lower=0).to_numpy(dtype=float))
    return pd.DataFrame(logs, index=values.index, columns=values.columns)


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
