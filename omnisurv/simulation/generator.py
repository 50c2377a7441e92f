"""The generative story of a simulated glioma-like cohort, one draw at a time.

Six latent factors of a patient drive everything: each modality shows some of them through its own
loadings, and so do hazard and clinical variables. Modalities overlap in what they show, so one
can be imputed from another. Two projects (LGG, GBM) differ in the first factor, in age and in
hazard. All draws come from the one generator that is passed in.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

Array = NDArray[np.float64]

FACTORS = 6
PROJECTS = ("LGG", "GBM")
SITES = tuple(f"Z{letter}" for letter in "139ACEFHJKLMPRTV")
ACROCENTRIC = (13, 14, 15, 21, 22)
ARMS = tuple(
    f"{number}{arm}"
    for number in range(1, 23)
    for arm in "pq"
    if arm == "q" or number not in ACROCENTRIC
)
WEIBULL_SHAPE = 1.3
DAYS_SCALE = 1500.0

# Log-hazard of one unit of each factor; the last two clauses are an interaction and age.
HAZARD = np.array([0.60, 0.60, -0.50, 0.30, 0.0, 0.25])
HAZARD_INTERACTION = 0.25
HAZARD_AGE = 0.40
HAZARD_GBM = 0.70
HAZARD_SITE_SD = 0.15


@dataclass(frozen=True)
class Source:
    """How one modality shows the latent factors.

    Attributes:
        link: from the working scale to values: exp | sigmoid | threshold | identity.
        sees: the factors it shows; ``FACTORS`` itself stands for age.
        decimals: digits that its files hold.
        base: offset of its log-odds of being measured.
        gbm: log-odds of being measured in GBM against LGG.
        late: log-odds of being measured in hospitals of the late era against the early one.
        holes: share of single values that are not measured where the modality is.
    """

    link: str
    sees: tuple[int, ...]
    decimals: int
    base: float
    gbm: float
    late: float
    holes: float

    @property
    def heavy_tails(self) -> bool:
        """Whether single values stray far, as in real expression and protein arrays."""
        return self.link in ("exp", "identity")


SOURCES = {
    "rna": Source("exp", (0, 1, 2, 3, 4), 4, 0.2, -2.4, 0.9, 0.0),
    "dnam": Source("sigmoid", (0, 1, 2, 5, 6), 6, 0.4, -1.2, 0.5, 0.03),
    "cnv_arm": Source("threshold", (0, 1, 2, 3), 0, 1.0, 0.6, -0.3, 0.05),
    "protein": Source("identity", (0, 1, 3, 4, 5), 4, -0.8, -1.0, -0.8, 0.01),
}


def draw_patients(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Draw project, hospital, era, age and gender of each patient."""
    sites = len(SITES)
    gbm = rng.random(count) < 0.45
    size = rng.gamma(4.0, size=sites)
    specialised = np.where(np.arange(sites) % 2 == 1, 6.0, 1.0)
    weights = np.stack([size / specialised, size * specialised])
    weights /= weights.sum(axis=1, keepdims=True)
    draw = rng.random(count)
    site = (draw[:, None] > weights.cumsum(axis=1)[gbm.astype(int)]).sum(axis=1).clip(0, sites - 1)
    early = np.argsort(rng.random(sites)) < sites // 2
    age = rng.normal(np.where(gbm, 60.0, 43.0), np.where(gbm, 11.0, 12.0)).clip(18, 89).round()
    codes = np.array(SITES)[site]
    names = [f"TCGA-{code}-S{number:03d}" for number, code in enumerate(codes, start=1)]
    return pd.DataFrame(
        {
            "project": np.array(PROJECTS)[gbm.astype(int)],
            "site": codes,
            "era": np.where(early[site], "early", "late"),
            "age": age,
            "gender": np.where(rng.random(count) < 0.42, "female", "male"),
        },
        index=pd.Index(names, name="patient"),
    )


def draw_latent(rng: np.random.Generator, patients: pd.DataFrame) -> pd.DataFrame:
    """Draw the factors: standard normal, the first shifted by the project."""
    latent = rng.standard_normal((len(patients), FACTORS))
    latent[:, 0] += np.where(patients["project"] == "GBM", 0.9, -0.9)
    names = [f"factor_{number}" for number in range(1, FACTORS + 1)]
    return pd.DataFrame(latent, patients.index, names)


def standard_age(patients: pd.DataFrame) -> Array:
    """Return age in units of 14 years around 52."""
    return ((patients["age"] - 52.0) / 14.0).to_numpy()


def draw_features(
    rng: np.random.Generator, source: Source, shown: Array, features: int
) -> tuple[Array, Array, Array]:
    """Draw what a modality would measure, on its working scale.

    Args:
        rng: the generator.
        source: how the modality shows the factors.
        shown: patients × (factors, age).
        features: number of its features.

    Returns:
        Mean given the factors (patients × features), sd of the rest, and their sum once drawn.
    """
    seen = shown[:, list(source.sees)]
    loads = rng.standard_normal((len(source.sees), features))
    active = rng.random(loads.shape) < 0.45
    active[rng.integers(len(source.sees), size=features), np.arange(features)] = True
    loads = np.where(active, loads, 0.0)
    loads /= np.linalg.norm(loads, axis=0)
    share = rng.beta(4.0, 3.0, size=features)
    centre, spread = _centre_and_spread(rng, source.link, features)
    mean = centre + spread * np.sqrt(share) * (seen @ loads)
    noise = spread * np.sqrt(1.0 - share)
    # A t with 5 degrees of freedom has variance 5/3.
    heavy = rng.standard_t(5, size=mean.shape) / np.sqrt(5.0 / 3.0)
    light = rng.standard_normal(mean.shape)
    return mean, noise, mean + noise * (heavy if source.heavy_tails else light)


def _centre_and_spread(rng: np.random.Generator, link: str, features: int) -> tuple[Array, Array]:
    if link == "exp":
        centre = rng.normal(1.2, 1.2, size=features)
        silent = rng.random(features) < 0.04
        return np.where(silent, -6.0, centre), rng.uniform(0.5, 1.0, size=features)
    if link == "sigmoid":
        low = rng.random(features) < 0.5
        centre = np.where(low, -1.6, 1.6) + rng.normal(0.0, 0.6, size=features)
        return centre, rng.uniform(0.6, 1.2, size=features)
    if link == "threshold":
        return rng.normal(0.0, 0.35, size=features), np.ones(features)
    return np.zeros(features), rng.uniform(0.4, 1.0, size=features)


def apply_link(link: str, working: Array, decimals: int) -> Array:
    """Turn the working scale into the values that files hold."""
    if link == "exp":
        values = np.exp(working.clip(max=12.0))
    elif link == "sigmoid":
        values = expit(working).clip(1e-4, 1.0 - 1e-4)
    elif link == "threshold":
        values = (working > 1.0).astype(float) - (working < -1.0)
    else:
        values = working
    return np.asarray(values.round(decimals), dtype=float)


def log_hazard(
    rng: np.random.Generator, patients: pd.DataFrame, latent: pd.DataFrame
) -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """Return the log-hazard due to the patient, and with the effect of the hospital added."""
    z = latent.to_numpy()
    own = z @ HAZARD + HAZARD_INTERACTION * z[:, 0] * z[:, 1]
    own += HAZARD_AGE * standard_age(patients) + HAZARD_GBM * (patients["project"] == "GBM")
    own -= own.mean()
    site = dict(zip(SITES, rng.normal(0.0, HAZARD_SITE_SD, len(SITES)), strict=True))
    risk = pd.Series(own, patients.index, name="oracle_risk")
    return risk, (risk + patients["site"].map(site)).rename("log_hazard")


def draw_survival(
    rng: np.random.Generator, hazard: pd.Series, event_rate: float
) -> tuple[pd.Series, pd.Series]:
    """Draw days and event: Weibull proportional hazards, independent censoring."""
    exposure = rng.exponential(size=len(hazard)) * np.exp(-hazard)
    death = np.ceil(DAYS_SCALE * exposure ** (1.0 / WEIBULL_SHAPE))
    unit = rng.weibull(1.2, size=len(hazard))

    def excess(scale: float) -> float:
        return float((death <= np.ceil(unit * np.exp(scale))).mean() - event_rate)

    follow_up = np.ceil(unit * np.exp(brentq(excess, 0.0, 25.0, xtol=1e-3)))
    time = pd.Series(np.minimum(death, follow_up), hazard.index, name="time")
    return time, (death <= follow_up).astype(float).rename("event")


def draw_clinical(
    rng: np.random.Generator, patients: pd.DataFrame, latent: pd.DataFrame, risk: pd.Series
) -> pd.DataFrame:
    """Draw the clinical variables, before any is lost."""
    z, count = latent.to_numpy(), len(patients)
    gbm = (patients["project"] == "GBM").to_numpy()
    wild = z[:, 0] + 0.6 * rng.standard_normal(count) > 0.0
    methylated = z[:, 1] + z[:, 5] + rng.standard_normal(count) < 0.0
    high = z[:, 1] + 0.8 * rng.standard_normal(count) > 0.0
    fitness = 82.0 - 4.0 * risk.to_numpy() + 9.0 * rng.standard_normal(count)
    return pd.DataFrame(
        {
            "age_at_index": patients["age"],
            "gender": patients["gender"],
            "grade": np.where(gbm, "G4", np.where(high, "G3", "G2")),
            "karnofsky": (fitness / 10.0).round().clip(4, 10) * 10.0,
            "IDH": np.where(wild, "WT", "Mutant"),
            "MGMT": np.where(methylated, "Methylated", "Unmethylated"),
        },
        index=patients.index,
    )


CLINICAL_HOLES = {"karnofsky": 0.2, "IDH": 0.12, "MGMT": 0.25, "grade": 0.03}


def draw_availability(
    rng: np.random.Generator, patients: pd.DataFrame, missing: float, informative: bool
) -> pd.DataFrame:
    """Draw which modalities a patient has; every patient keeps at least one.

    Informative gaps follow project and era of the hospital, as in TCGA, never the outcome
    itself; so within a project they tell next to nothing about survival.
    """
    count = len(patients)
    gbm, late = patients["project"] == "GBM", patients["era"] == "late"
    site = dict(zip(SITES, rng.normal(0.0, 0.5, len(SITES)), strict=True))
    odds = pd.DataFrame(
        {
            name: source.base
            + informative * (source.gbm * gbm + source.late * late + patients["site"].map(site))
            for name, source in SOURCES.items()
        }
    )
    draw = rng.random(odds.shape)
    alone = rng.random(count) < 0.12 * missing
    chosen = rng.integers(odds.shape[1], size=count)
    no_clinical = rng.random(count) < 0.1 * missing
    if missing <= 0:
        return pd.DataFrame(True, patients.index, ["clinical", *SOURCES])

    def present(offset: float) -> NDArray[np.bool_]:
        has: NDArray[np.bool_] = draw < expit(odds.to_numpy() + offset)
        only = np.eye(odds.shape[1], dtype=bool)[chosen]
        return np.where(alone[:, None], only, has)

    # A step function of the offset: bisection ends within one cell of the wanted share.
    offset = brentq(lambda shift: float(1.0 - missing - present(shift).mean()), -30.0, 30.0)
    has = pd.DataFrame(present(offset), patients.index, list(SOURCES))
    nothing = ~has.any(axis=1).to_numpy()
    has.insert(0, "clinical", ~(alone | no_clinical) | nothing)
    return has


def draw_holes(
    rng: np.random.Generator, patients: pd.DataFrame, truth: dict[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Draw which single values are measured where a modality is (True = measured)."""
    measured = {}
    for name, values in truth.items():
        shares = pd.Series(SOURCES[name].holes if name in SOURCES else 0.0, values.columns)
        if name == "clinical":
            shares.update(pd.Series(CLINICAL_HOLES))
        measured[name] = pd.DataFrame(
            rng.random(values.shape) >= shares.to_numpy(), values.index, values.columns
        )
    # Early hospitals used the small array, which lacks a third of the probes.
    small_array = (patients["era"] == "early").to_numpy()
    lacking = rng.random(truth["dnam"].shape[1]) < 1 / 3
    measured["dnam"] &= ~(small_array[:, None] & lacking[None, :])
    return measured
