"""What a page says of what drives predictions."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from omnisurv import plots
from omnisurv.pages.results import notes_section
from omnisurv.report import Section, write_page

if TYPE_CHECKING:
    from omnisurv.explanation import Explained

FEATURES = 15
"""Features of a modality that are drawn and listed."""
COLUMNS = {
    "shapley": "mean |Shapley|",
    "drop": "drop of C",
    "spread": "spread if measured",
    "strongest": "strongest features",
}


def explanation_page(
    folder: str | Path, found: "Explained", who: str, title: str, command: str
) -> Path:
    """Write ``report.html`` and the figures; return the page.

    Args:
        folder: where.
        found: what drives the risks.
        who: the patients, in words.
        title: the model's name.
        command: what made the page.
    """
    lead = (
        f"What {title} rests on in {who}. All values are in units of the log cumulative hazard. "
        "They say what the model uses, not what causes the outcome."
    )
    return write_page(folder, "What drives the predictions", [*_sections(found)], lead, command)


def shown_modalities(found: "Explained") -> pd.DataFrame:
    """Return the table of modalities with headings for people."""
    return found.modalities().round(9).rename(columns=COLUMNS)  # 1e-16 is nothing


def permutation_section(values: pd.DataFrame, title: str = "Modality value") -> Section:
    """Return how much the ranking of patients hangs on each modality."""
    values = values.round(9)
    return Section(
        title,
        "How much Harrell's C drops when the measurements of one modality are dealt out anew "
        "among the patients who have it, all else as it was: what the ranking of these patients "
        "hangs on. Two modalities that say the same share their value.",
        figure=plots.modality_importance(values),
        alt="Bars of the drop of Harrell's C by modality with intervals",
        table=values,
        caption="n: patients scored; having: whose measurements changed hands.",
    )


def _sections(found: "Explained") -> Iterator[Section]:
    yield Section(
        "Each modality",
        "Shapley values share out, for each patient, the risk from all there is less the risk "
        "from nothing, as the mean over the orders in which modalities may join.",
        figure=plots.modality_importance(found.shapley),
        alt="Bars of the mean size of the Shapley values by modality with intervals",
        table=shown_modalities(found),
        caption="has, lack: patients. Spread if measured: median over those who lack a modality of "
        "the standard deviation of their risk over draws of what it may be.",
    )
    by_patient = found.shapley.pivot_table(index="patient", columns="modality", values="value")
    yield Section(
        "Each patient",
        "A dot is what a modality adds to the risk of one patient who has it.",
        figure=plots.beeswarm(by_patient),
        alt="Dots of the Shapley values of all patients, by modality",
    )
    if found.permutation is not None:
        yield permutation_section(found.permutation, "Drop of concordance")
    for name, table in found.measuring.items():
        yield _measuring_section(name, table)
    for name in found.features:
        yield _feature_section(found, name)
    yield from notes_section(found.notes)


def _measuring_section(name: str, table: pd.DataFrame) -> Section:
    rows = table.sort_values("sd", ascending=False, kind="stable").rename_axis("patient")
    return Section(
        f"Measuring {name}",
        f"What measuring {name} may do to the risk of those who lack it: the risk is predicted "
        f"again with draws of {name}, imputed from what each has plus errors made on patients held "
        "out. A wide bar says that the result would move the prediction, not that it would be "
        "better.",
        figure=plots.measuring(table, name),
        alt=f"Risk of each patient now, and where {name} may move it",
        table=rows.reset_index(),
    )


def _feature_section(found: "Explained", name: str) -> Section:
    rows = found.by_feature()
    rows = rows[rows["modality"] == name].drop(columns="modality").head(FEATURES)
    return Section(
        f"Features of {name}",
        "Integrated gradients from the training patients' mean to what was measured, all other "
        f"modalities as they are. The {len(rows)} of the largest mean size; all of them are in "
        f"features/{name}.csv.",
        figure=plots.beeswarm(found.features[name], found.measured[name], most=FEATURES),
        alt=f"Dots of what each feature of {name} adds to the risk of each patient",
        table=rows,
        caption="Mean and mean size (size) of what a feature adds to the log risk.",
    )
