"""What a page says of a few patients who differ, each behind a line that opens."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv.errors import InputError
from omnisurv.pages.patient import example_patient, patient_sections
from omnisurv.report import Fold, Section
from omnisurv.tasks.survival import SurvivalModel

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort

THIRDS = ("low", "middle", "high")


def differing_patients(model: "FittedModel", cohort: "Cohort") -> list[str]:
    """Return up to three patients who differ, always the same ones.

    One from each third of the predicted risk, the lowest first (where no survival is predicted,
    of the number of modalities): of the better measured half of the third the lowest, the middle
    and the highest, but in one of them the patient who shows best what missing is, with some
    pictures there and others not. No outcome is looked at.
    """
    there = cohort.availability.reindex(columns=list(model.modalities), fill_value=False)
    there = there[there.any(axis=1)]
    if not len(there):
        return []
    count = there.sum(axis=1)
    risk = model.predict(cohort) if isinstance(model, SurvivalModel) else count
    order = risk[there.index].sort_values(kind="stable").index
    shown = example_patient(cohort)
    if shown not in there.index:
        shown = str((~there.all(axis=1)).idxmax())
    thirds = [part for part in np.array_split(order.to_numpy(), 3) if len(part)]
    found = []
    for part, place in zip(thirds, (0.0, 0.5, 1.0), strict=False):
        most = part[count[part] >= count[part].median()]
        found.append(str(shown if shown in part else most[round(place * (len(most) - 1))]))
    return found


def patients_section(model: "FittedModel", cohort: "Cohort", patients: list[str]) -> Section:
    """Return one section with what there is of each patient, and what the model makes of it.

    Args:
        model: imputes, and predicts survival if it is a survival model.
        cohort: the patients', among whom their risk is ranked.
        patients: who is shown.
    """
    risk = model.predict(cohort) if isinstance(model, SurvivalModel) else None
    text = (
        "Each line opens what was measured of a patient, beside what the model imputes, and would "
        "have imputed of the measured had it been hidden."
    )
    if risk is not None:
        text += f" Risks are ranked among {len(cohort)} patients, the lowest first."
    folds = []
    for patient in patients:
        try:
            sections = patient_sections(model, cohort, patient)
        except InputError as error:
            sections = [Section(f"A patient: {patient}", f"Left out: {error}.")]
        folds.append(Fold(_summary(model, cohort, patient, risk), sections))
    return Section("Patients", text, folds=folds)


def _summary(
    model: "FittedModel", cohort: "Cohort", patient: str, risk: "pd.Series[float] | None"
) -> str:
    """Say in a line what distinguishes a patient."""
    alone = cohort.subset([patient]).availability.any()
    lacks = [name for name in model.modalities if not alone.get(name, False)]
    told = f"lacks {', '.join(lacks)}" if lacks else f"has all {len(model.modalities)} modalities"
    if risk is None:
        return f"{patient}: {told}"
    rank = int(risk.rank(method="first")[patient])
    third = THIRDS[(rank - 1) * 3 // len(risk)]
    return f"{patient}: {third} predicted risk (rank {rank} of {len(risk)}), {told}"
