"""A simulated cohort and all that is known about it."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv.errors import InputError
from omnisurv.simulation import brains, slides
from omnisurv.simulation import generator as draws
from omnisurv.simulation.look import draw_look, draw_picture_gaps

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

UNKNOWN_ENDPOINT = 0.02
# Pictures draw from streams of their own, so that all else is the same without them.
LOOK_STREAM, BRAIN_STREAM, SLIDE_STREAM = 2, 3, 4


@dataclass(frozen=True, eq=False)
class SimulatedCohort:
    """What is measured of each patient, and the truth behind it.

    Attributes:
        seed: the seed it was drawn with.
        patients: project, site (hospital), era, age and gender of each patient.
        latent: the factors, patients × 6.
        log_hazard: true log-hazard, hospital effect included.
        oracle_risk: log-hazard that is due to the patient; no model can know more.
        time: days to event or censoring; NaN where the follow-up is unknown.
        event: 1 died, 0 censored; NaN where the follow-up is unknown.
        truth: complete values of each modality before anything is removed.
        mean: mean of each omics modality given the latent factors, on its working scale.
        noise: standard deviation around that mean, by feature.
        measured: True where a value is measured, patients × features of each modality.
        availability: True where a patient has the modality; with pictures also t1, t1ce, t2,
            flair and wsi.
        look: traits that the pictures show (``look.TRAITS``), by patient; None without pictures.
        look_mean: mean of these traits given the latent factors and age.
    """

    seed: int
    patients: pd.DataFrame
    latent: pd.DataFrame
    log_hazard: pd.Series
    oracle_risk: pd.Series
    time: pd.Series
    event: pd.Series
    truth: dict[str, pd.DataFrame]
    mean: dict[str, pd.DataFrame]
    noise: dict[str, pd.Series]
    measured: dict[str, pd.DataFrame]
    availability: pd.DataFrame
    look: pd.DataFrame | None = None
    look_mean: pd.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def hospitals(self) -> pd.Series:
        """Tissue source site of each patient."""
        return self.patients["site"]

    @property
    def clinical(self) -> pd.DataFrame:
        """Clinical table as known: project, hospital, endpoint, variables with their holes."""
        known = self.truth["clinical"].where(self._mask("clinical"))
        fixed = {
            "project_id": self.patients["project"],
            "tissue_source_site": self.patients["site"],
            "OS": self.event,
            "OS.time": self.time,
        }
        return pd.concat([pd.DataFrame(fixed), known], axis=1)

    def observed(self, modality: str) -> pd.DataFrame:
        """Return what was measured: patients who have the modality, NaN where not measured."""
        mask = self._mask(modality)
        return self.truth[modality].where(mask)[self.availability[modality]]

    def brain(self, patient: str) -> brains.Brain:
        """Draw a patient's four sequences and segmentation, whichever were really taken.

        Raises:
            InputError: the cohort has no pictures, or no such patient.
        """
        row, look = self._look_of(patient)
        return brains.render(look, np.random.default_rng([self.seed, BRAIN_STREAM, row]))

    def slide(
        self, patient: str, number: int = 1, trouble: slides.Trouble | None = None
    ) -> slides.Picture:
        """Draw a patient's first (or another) slide, uint8 (y, x, 3), whether there is one or not.

        Raises:
            InputError: the cohort has no pictures, or no such patient.
        """
        row, look = self._look_of(patient)
        return slides.render(
            look, np.random.default_rng([self.seed, SLIDE_STREAM, row, number]), trouble
        )

    def oracle_c_index(self, patients: "pd.Index | None" = None) -> float:
        """Return Harrell's C of the true risk, the most that a model can reach but for luck."""
        from lifelines.utils import concordance_index

        known = self.time.dropna().index
        chosen = known if patients is None else known.intersection(patients)
        return float(
            concordance_index(self.time[chosen], -self.oracle_risk[chosen], self.event[chosen])
        )

    def survival_function(self, days: "list[float] | np.ndarray") -> pd.DataFrame:
        """Return the true survival curves, days × patients."""
        exposure = (np.asarray(days, dtype=float) / draws.DAYS_SCALE) ** draws.WEIBULL_SHAPE
        curves = np.exp(-np.outer(exposure, np.exp(self.log_hazard)))
        return pd.DataFrame(curves, pd.Index(days, name="days"), self.patients.index)

    def to_cohort(self) -> "Cohort":
        """Return the cohort as the readers would give it, without touching a file or a picture."""
        from omnisurv.simulation.memory import build

        return build(self)

    def _look_of(self, patient: str) -> tuple[int, dict[str, float]]:
        """Return number and traits of a patient."""
        if self.look is None:
            raise InputError("this cohort has no pictures; draw it by simulate(…, pictures=True)")
        row = int(self.look.index.get_indexer(pd.Index([patient]))[0])
        if row < 0:
            raise InputError(f"there is no simulated patient {patient}")
        return row, {str(name): float(value) for name, value in self.look.iloc[row].items()}

    def _mask(self, modality: str) -> pd.DataFrame:
        has = self.availability[modality].to_numpy()
        return self.measured[modality] & has[:, None]


def simulate(
    patients: int = 300,
    seed: int = 0,
    *,
    missing: float = 0.35,
    informative: bool = True,
    genes: int = 600,
    cpgs: int = 400,
    proteins: int = 120,
    event_rate: float = 0.55,
    pictures: bool = False,
) -> SimulatedCohort:
    """Simulate a glioma-like cohort of two projects: clinical, rna, dnam, cnv_arm, protein.

    The truth depends on ``seed`` and the sizes alone, so the same patients can be had with more
    or fewer gaps, with pictures or without.

    Args:
        patients: number of patients.
        seed: seed of everything.
        missing: share of the omics modality cells (patient × modality) that are missing.
        informative: whether gaps follow project and hospital, or nothing at all.
        genes: protein-coding genes of ``rna``.
        cpgs: probes of ``dnam``.
        proteins: proteins of ``protein``.
        event_rate: share of patients whose death is observed.
        pictures: whether patients also have MRI (t1, t1ce, t2, flair) and slides (wsi), which
            are drawn when asked for or written.

    Example:
        >>> cohort = simulate(patients=100, seed=1)
        >>> sorted(cohort.truth)
        ['clinical', 'cnv_arm', 'dnam', 'protein', 'rna']
    """
    if not 0.0 <= missing <= 0.8:
        raise InputError(f"simulate: missing={missing} must lie between 0 and 0.8")
    if patients < 20:
        raise InputError(f"simulate: patients={patients} is too few, at least 20 are needed")
    rng = np.random.default_rng(seed)
    people = draws.draw_patients(rng, patients)
    latent = draws.draw_latent(rng, people)
    shown = np.column_stack([latent, draws.standard_age(people)])
    truth, mean, noise = _draw_modalities(rng, shown, people.index, _names(genes, cpgs, proteins))
    risk, hazard = draws.log_hazard(rng, people, latent)
    time, event = draws.draw_survival(rng, hazard, event_rate)
    truth["clinical"] = draws.draw_clinical(rng, people, latent, risk)
    unknown = rng.random(patients) < UNKNOWN_ENDPOINT
    measured = draws.draw_holes(rng, people, truth)
    has = draws.draw_availability(rng, people, missing, informative)
    simulated = SimulatedCohort(
        seed=seed,
        patients=people,
        latent=latent,
        log_hazard=hazard,
        oracle_risk=risk,
        time=time.mask(unknown),
        event=event.mask(unknown),
        truth=truth,
        mean=mean,
        noise=noise,
        measured=measured,
        availability=has,
    )
    return _with_pictures(simulated, missing, informative) if pictures else simulated


def _with_pictures(
    simulated: SimulatedCohort, missing: float, informative: bool
) -> SimulatedCohort:
    rng = np.random.default_rng([simulated.seed, LOOK_STREAM])
    people = simulated.patients
    look, mean = draw_look(rng, people, simulated.latent)
    has = draw_picture_gaps(rng, people, missing, informative)
    availability = pd.concat([simulated.availability, has], axis=1)
    return replace(simulated, availability=availability, look=look, look_mean=mean)


def remove_cells(simulated: SimulatedCohort, share: float, seed: int = 0) -> SimulatedCohort:
    """Remove a share of the available patient × modality cells, blindly.

    Clinical counts as a cell too. Every patient keeps at least one modality.

    Example:
        >>> half = remove_cells(simulate(patients=100, missing=0.0), 0.5)
        >>> float(half.availability.to_numpy().mean())
        0.5
    """
    rng = np.random.default_rng(seed)
    has = simulated.availability.to_numpy().copy()
    wanted = round(share * int(has.sum()))
    order = np.where(has, rng.random(has.shape), -1.0)
    kept = order.argmax(axis=1)
    free = has.copy()
    free[np.arange(len(has)), kept] = False
    rows, columns = np.nonzero(free)
    if not 0 <= wanted <= len(rows):
        raise InputError(
            f"remove_cells: share={share} would leave patients with nothing; "
            f"at most {len(rows) / has.sum():.2f} can go"
        )
    chosen = rng.permutation(len(rows))[:wanted]
    has[rows[chosen], columns[chosen]] = False
    frame = simulated.availability
    return replace(simulated, availability=pd.DataFrame(has, frame.index, frame.columns))


def _names(genes: int, cpgs: int, proteins: int) -> dict[str, list[str]]:
    return {
        "rna": [f"ENSG{90_000_000_000 + number:011d}" for number in range(1, genes + 1)],
        "dnam": [f"cg{90_000_000 + 37 * number:08d}" for number in range(1, cpgs + 1)],
        "cnv_arm": list(draws.ARMS),
        "protein": [f"PROTEIN{number:03d}" for number in range(1, proteins + 1)],
    }


def _draw_modalities(
    rng: np.random.Generator, shown: np.ndarray, index: pd.Index, names: dict[str, list[str]]
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame], dict[str, pd.Series]]:
    truth, mean, noise = {}, {}, {}
    for name, source in draws.SOURCES.items():
        columns = names[name]
        expected, spread, working = draws.draw_features(rng, source, shown, len(columns))
        values = draws.apply_link(source.link, working, source.decimals)
        mean[name] = pd.DataFrame(expected, index, columns)
        noise[name] = pd.Series(spread, columns)
        truth[name] = pd.DataFrame(values, index, columns)
    return truth, mean, noise
