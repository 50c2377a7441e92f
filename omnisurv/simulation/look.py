"""How the pictures of a simulated patient look, and who has any.

The factors that drive omics and hazard also drive traits: sizes, shares and shades that a
renderer draws. Each sequence and the slide show some of the traits, so pictures tell of each
other, of the omics and of the outcome.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from omnisurv.simulation.generator import SITES, standard_age

SEQUENCES = ("t1", "t1ce", "t2", "flair")
PICTURES = (*SEQUENCES, "wsi")
FACTOR_SPREAD = {"factor_1": np.sqrt(1.0 + 0.9**2)}
"""Standard deviation of a factor where it is not 1: the first differs between projects."""
SHARE = 0.8
"""Share of a trait's variance that is due to the factors."""


class Trait(NamedTuple):
    """Something that can be seen: its range, and how strongly factors and age drive it."""

    low: float
    high: float
    loads: Mapping[str, float]


TRAITS = {
    # MRI: radius of the tumour core in mm (all sequences)
    "tumour_radius": Trait(11.0, 27.0, {"factor_2": 0.95, "factor_1": 0.3}),
    # brightness and extent of the enhancing ring, 0..1 (t1ce)
    "enhancement": Trait(0.0, 1.0, {"factor_1": 0.95, "factor_2": 0.2}),
    # share of the core that is dead (t1, t1ce, t2)
    "necrosis": Trait(0.03, 0.6, {"factor_4": 0.9, "factor_1": 0.4}),
    # width of the oedema around the core in mm (flair, t2)
    "oedema": Trait(3.0, 20.0, {"factor_3": -0.95, "factor_6": 0.2}),
    # 0..1: solid tumour bright in t2 and dark in flair, as in the T2-FLAIR mismatch sign
    "fluid": Trait(0.0, 1.0, {"factor_6": 0.95, "factor_3": 0.2}),
    # amplitude of the tumour's graininess (t1, t2)
    "texture": Trait(0.02, 0.4, {"factor_5": 0.95, "factor_4": 0.2}),
    # width of the ventricles in multiples of the usual (all sequences)
    "ventricles": Trait(0.7, 1.6, {"age": 0.95}),
    # slides: nuclei per mm²
    "cellularity": Trait(800.0, 5200.0, {"factor_2": 0.95, "factor_1": 0.3}),
    # mean radius of a nucleus in µm
    "nuclear_radius": Trait(3.2, 4.7, {"factor_5": 0.95, "factor_2": 0.2}),
    # share of the tissue that is dead
    "dead_tissue": Trait(0.0, 0.35, {"factor_1": 0.8, "factor_4": 0.5}),
    # 0 = pink (eosin), 1 = blue (haematoxylin)
    "basophilia": Trait(0.0, 1.0, {"factor_3": 0.95, "factor_6": 0.3}),
}


def draw_look(
    rng: np.random.Generator, patients: pd.DataFrame, latent: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw the traits of each patient; return them and their mean given the factors.

    A trait is uniform over its range: the normal distribution function of a weighted sum of
    factors (``SHARE`` of the variance) and noise.
    """
    drivers = latent.assign(age=standard_age(patients))
    look, mean = {}, {}
    for name, trait in TRAITS.items():
        norm = np.sqrt(sum(load**2 for load in trait.loads.values()))
        told = sum(
            load / norm * drivers[driver].to_numpy() / FACTOR_SPREAD.get(driver, 1.0)
            for driver, load in trait.loads.items()
        )
        signal = np.sqrt(SHARE) * told
        noise = np.sqrt(1.0 - SHARE) * rng.standard_normal(len(patients))
        width = trait.high - trait.low
        look[name] = trait.low + width * ndtr(signal + noise)
        # E[Φ(m + s ε)] = Φ(m / sqrt(1 + s²))
        mean[name] = trait.low + width * ndtr(signal / np.sqrt(2.0 - SHARE))
    return pd.DataFrame(look, patients.index), pd.DataFrame(mean, patients.index)


# Log-odds of having a picture: GBM against LGG, late era against early, spread of hospitals.
SCANNED = (0.8, 0.6, 0.8)
SECTIONED = (-1.0, 0.7, 0.6)
# Log-odds that a scanned patient has the sequence, in hospitals of the early and late era.
SEQUENCE_ODDS = {"t1": (1.6, 1.8), "t1ce": (1.0, 3.0), "t2": (2.2, 1.6), "flair": (0.6, 2.6)}
LEAST_SEQUENCES = 2


def draw_picture_gaps(
    rng: np.random.Generator, patients: pd.DataFrame, missing: float, informative: bool
) -> pd.DataFrame:
    """Draw who has which picture: patients × (t1, t1ce, t2, flair, wsi).

    Pictures are rarer than omics: where 35 % of the omics are missing, 55 % of the patients have
    no MRI and 45 % no slide. Who is scanned has two to four of the sequences. Informative gaps
    follow project, era and hospital, as for omics.
    """
    scanned = _having(rng, patients, SCANNED, missing**0.57, informative)
    sectioned = _having(rng, patients, SECTIONED, missing**0.76, informative)
    has = draw_sequence_gaps(rng, patients, missing, informative)
    return (has & scanned[:, None]).assign(wsi=sectioned)


def draw_sequence_gaps(
    rng: np.random.Generator, patients: pd.DataFrame, missing: float, informative: bool
) -> pd.DataFrame:
    """Draw which sequences a scanned patient has: patients × (t1, t1ce, t2, flair).

    Informative gaps follow the hospital's era.
    """
    late = (patients["era"] == "late").to_numpy() if informative else np.zeros(len(patients), bool)
    odds = np.array([SEQUENCE_ODDS[name] for name in SEQUENCES])
    if not informative:
        odds = odds.mean(axis=1, keepdims=True).repeat(2, axis=1)
    lost = expit(-odds[:, late.astype(int)].T) * min(missing / 0.35, 1.5)
    draw = rng.random(lost.shape) - lost
    has = draw >= 0.0
    # Who would have fewer keeps those that were the least likely to go.
    best = np.argsort(-draw, axis=1)[:, :LEAST_SEQUENCES]
    np.put_along_axis(has, best, True, axis=1)
    return pd.DataFrame(has, patients.index, list(SEQUENCES))


def _having(
    rng: np.random.Generator,
    patients: pd.DataFrame,
    odds: tuple[float, float, float],
    missing: float,
    informative: bool,
) -> NDArray[np.bool_]:
    """Draw who has a picture, exactly the wanted share of all."""
    gbm, late, spread = odds
    site = dict(zip(SITES, rng.normal(0.0, spread, len(SITES)), strict=True))
    told = (
        gbm * (patients["project"] == "GBM")
        + late * (patients["era"] == "late")
        + patients["site"].map(site)
    )
    score = informative * told.to_numpy() + rng.logistic(size=len(patients))
    rank = (-score).argsort().argsort()
    return np.asarray(rank < round((1.0 - missing) * len(patients)))
