"""A simulated cohort as BraTS 2021 lies on disk: sequences with gaps, label maps, survival."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.data.regions import BACKGROUND, OEDEMA, REGIONS, from_common
from omnisurv.errors import InputError
from omnisurv.simulation.brains import Brain, affine
from omnisurv.simulation.look import SEQUENCES, TRAITS, draw_sequence_gaps
from omnisurv.simulation.pictures import CASES, require_packages, write_nifti
from omnisurv.simulation.spec import BRATS
from omnisurv.simulation.truth import SimulatedCohort, simulate

GAPS_STREAM, CASES_STREAM = 7, 8
EDITION = "brats21"
MARGIN = 4
"""Planes left and right of every brain that are not written."""
# Range of traits here: BraTS's tumours are larger than all gliomas are, and most enhance.
RANGES = {"tumour_radius": (16.0, 30.0), "enhancement": (0.25, 0.9)}


def simulate_brats(
    patients: int = 300, seed: int = 0, *, missing: float = 0.35, informative: bool = True
) -> SimulatedCohort:
    """Simulate patients who were all scanned, but not all with every sequence.

    They are the patients of ``simulate``: the same factors drive size and enhancement of the
    tumour, survival, and whether it is an LGG or a GBM. Oedema shows in FLAIR and less in T2,
    the enhancing rim in T1 with contrast alone, so each region needs its sequence.

    Args:
        patients: number of patients.
        seed: seed of everything.
        missing: how many sequences are missing; at 0.35 a sixth of them, and half of the patients
            have all four. Who has fewer has at least two.
        informative: whether gaps follow the hospital's era, or nothing at all.

    Example:
        >>> drawn = simulate_brats(40, missing=0.0)
        >>> bool(drawn.availability[["t1", "t1ce", "t2", "flair"]].all(axis=None))
        True
    """
    drawn = simulate(patients, seed, missing=missing, informative=informative, pictures=True)
    assert drawn.look is not None
    assert drawn.look_mean is not None
    rng = np.random.default_rng([seed, GAPS_STREAM])
    has = draw_sequence_gaps(rng, drawn.patients, missing, informative)
    return replace(
        drawn,
        availability=drawn.availability.assign(**has, wsi=False),
        look=_widened(drawn.look),
        look_mean=_widened(drawn.look_mean),
    )


def write_brats(simulated: SimulatedCohort, out_dir: "Path | str") -> Path:
    """Write ``mri/CASE/CASE_{t1,t1ce,t2,flair,seg}.nii.gz``; return the spec, ``cohort.yaml``.

    ``clinical.tsv`` has survival and subtype by case. ``truth/``, which no model may read, has
    the patient behind each case, the factors and the look of the tumour. Whoever has no sequence
    is not written.

    Raises:
        InputError: the cohort has no pictures, or nibabel is not installed.
    """
    if simulated.look is None:
        raise InputError("this cohort has no pictures; draw it by simulate_brats(…)")
    require_packages(("nibabel",))
    out = Path(out_dir)
    cases = _cases(simulated)
    for patient, case in cases.items():
        _write_case(simulated, str(patient), out / "mri" / str(case))
    _write_tables(simulated, cases, out)
    spec = out / "cohort.yaml"
    spec.write_text(BRATS, encoding="utf-8")
    return spec


def nested_labels(brain: Brain) -> NDArray[np.uint8]:
    """Return labels whose oedema reaches up to the core: what is part of both is oedema."""
    from scipy.ndimage import binary_dilation

    labels, inside = brain.labels, brain.volumes["t1"] > 0
    near_core = binary_dilation(np.isin(labels, REGIONS["TC"]))
    near_oedema = binary_dilation(labels == OEDEMA, iterations=2)
    between = inside & (labels == BACKGROUND) & near_core & near_oedema
    return np.where(between, np.uint8(OEDEMA), labels)


def _widened(look: pd.DataFrame) -> pd.DataFrame:
    """Return traits on the ranges that they have here."""
    moved = {}
    for name, (low, high) in RANGES.items():
        trait = TRAITS[name]
        moved[name] = low + (look[name] - trait.low) / (trait.high - trait.low) * (high - low)
    return look.assign(**moved)


def _cases(simulated: SimulatedCohort) -> "pd.Series[str]":
    """Return the case of each patient with a sequence, in the order of cases."""
    rng = np.random.default_rng([simulated.seed, CASES_STREAM])
    people = simulated.patients.index
    numbers = rng.choice(max(CASES, 2 * len(people)), len(people), replace=False)
    cases = pd.Series([f"BraTS2021_{n:05d}" for n in numbers], people, name="case")
    scanned = simulated.availability[list(SEQUENCES)].any(axis=1)
    return cases[scanned].sort_values()


def _write_case(simulated: SimulatedCohort, patient: str, folder: Path) -> None:
    brain = simulated.brain(patient)
    files: dict[str, NDArray[np.generic]] = {
        name: brain.volumes[name] for name in SEQUENCES if simulated.availability.loc[patient, name]
    }
    files["seg"] = from_common(nested_labels(brain), EDITION)
    where = affine()
    where[:, 3] = where @ [MARGIN, 0, 0, 1]
    for name, volume in files.items():
        path = folder / f"{folder.name}_{name}.nii.gz"
        write_nifti(np.ascontiguousarray(volume[MARGIN:-MARGIN]), path, where)


def _write_tables(simulated: SimulatedCohort, cases: "pd.Series[str]", out: Path) -> None:
    assert simulated.look is not None
    assert simulated.look_mean is not None
    people = simulated.patients.loc[cases.index]
    survival = pd.DataFrame({"OS.time": simulated.time, "OS": simulated.event}).loc[cases.index]
    clinical = pd.DataFrame(
        {"patient": cases, **survival.astype("Int64"), "subtype": people["project"]}
    )
    clinical.assign(age=people["age"].astype(int)).to_csv(
        out / "clinical.tsv", sep="\t", index=False, na_rep="NA"
    )
    truth = out / "truth"
    truth.mkdir(exist_ok=True)
    cases.rename_axis("patient").reset_index().to_csv(truth / "cases.tsv", sep="\t", index=False)
    risk = simulated.oracle_risk.rename("oracle_risk").to_frame()
    tables = {
        "latent": simulated.latent,
        "look": simulated.look,
        "mean_look": simulated.look_mean,
        "survival": people.join(risk),
    }
    for name, table in tables.items():
        table.loc[cases.index].set_axis(pd.Index(cases, name="case")).to_parquet(
            truth / f"{name}.parquet"
        )
