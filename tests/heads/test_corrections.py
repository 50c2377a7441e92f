"""Corrections: found where they are, absent where they are not, zero where nothing is known."""

import numpy as np
import pytest
import torch

from omnisurv.core import Latent
from omnisurv.head import Evidence
from omnisurv.heads.corrections import (
    COMPONENTS,
    Components,
    Corrections,
    Training,
    fit_corrections,
)
from omnisurv.heads.linear import Discrete
from omnisurv.heads.survival import LogisticHazard, TimeGrid

N, FEATURES, RIDGE = 360, 12, 20.0


def draw(seed, effect=0.0, stratum_with_effect=1):
    """Two strata, a clinical score, and two modalities of which ``rna`` may matter in one."""
    rng = np.random.default_rng(seed)
    stratum = rng.integers(0, 2, N)
    clinical = rng.normal(size=(N, 2))
    factor = rng.normal(size=N)
    loadings = rng.normal(size=FEATURES)
    rna = factor[:, None] * loadings + rng.normal(size=(N, FEATURES)) * 0.7
    protein = rng.normal(size=(N, FEATURES))
    rna[rng.random(N) < 0.2] = np.nan
    protein[rng.random(N) < 0.4] = np.nan
    hazard = 0.8 * clinical[:, 0] + effect * factor * (stratum == stratum_with_effect)
    death, left = rng.exponential(800 * np.exp(-hazard)), rng.uniform(100, 3000, N)
    time, event = np.minimum(death, left) + 1, death <= left
    grid = TimeGrid.fit(time, event, 12, "quantiles")
    interval, happened = grid.transform(time, event)
    data = Training(
        torch.tensor(clinical, dtype=torch.float32),
        {
            "rna": torch.tensor(rna, dtype=torch.float32),
            "protein": torch.tensor(protein, dtype=torch.float32),
        },
        torch.tensor(stratum),
        Discrete(torch.tensor(interval), torch.tensor(happened).float()),
    )
    order = torch.tensor(rng.permutation(N) % 5)
    return data, [order == fold for fold in range(5)], len(grid.cuts)


def fit(data, inner, cuts):
    corrections = Corrections({"rna": FEATURES, "protein": FEATURES}, 2)
    head = LogisticHazard(cuts, 2, corrections=corrections)
    head.fit_path(data.score, data.target, RIDGE)
    gains = fit_corrections(corrections, data, head.path(data.score), inner, RIDGE)
    return head, gains


def evidence(values, stratum, score=None):
    n = len(stratum)
    completed = torch.zeros(n, 2) if score is None else score
    latent = Latent(
        torch.zeros(n, 4),
        torch.zeros(n, 0, 4),
        torch.zeros(n, 0, dtype=torch.bool),
        torch.zeros(n, 0, dtype=torch.long),
        (),
    )
    return Evidence(latent, completed, torch.zeros_like(completed).bool(), values, stratum)


def test_a_planted_effect_is_found_in_its_stratum_alone():
    data, inner, cuts = draw(seed=0, effect=0.9)
    head, gains = fit(data, inner, cuts)
    assert list(gains) == [("rna", 1)]
    assert head.corrections.kept() == [("rna", 1)]
    assert gains["rna", 1] > 5
    shift = head.corrections(evidence(data.values, data.stratum))
    has = data.values["rna"].isfinite().any(1)
    assert (shift[data.stratum == 0] == 0).all()
    assert (shift[~has] == 0).all()
    assert float(shift[has & (data.stratum == 1)].std()) > 0.3


def test_pure_noise_is_hardly_ever_kept():
    """Four (modality, stratum) pairs in each of twelve cohorts, none of which matters."""
    kept = sum(len(fit(*draw(seed))[1]) for seed in range(100, 112))
    assert kept <= 2  # of 48


def test_fitting_twice_gives_the_same_bits_and_signs():
    first, second = (fit(*draw(seed=0, effect=0.9))[0] for _ in range(2))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_sign_of_an_axis_does_not_depend_on_the_order_of_patients():
    data, *_ = draw(seed=0)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    a = Components(FEATURES, 2).fit(data.values["rna"], data.stratum)
    b = Components(FEATURES, 2).fit(data.values["rna"][order], data.stratum[order])
    torch.testing.assert_close(a.axes, b.axes, rtol=1e-3, atol=1e-4)


def random_corrections():
    data, *_ = draw(seed=3)
    corrections = Corrections({"rna": FEATURES, "protein": FEATURES}, 2)
    for name, components in corrections.components.items():
        components.fit(data.values[name], data.stratum)
        corrections.weights[name].data.normal_(generator=torch.Generator().manual_seed(2))
    return corrections, data


def test_an_absent_modality_contributes_exactly_nothing():
    corrections, data = random_corrections()
    both = corrections(evidence(data.values, data.stratum))
    gone = {**data.values, "protein": torch.full_like(data.values["protein"], torch.nan)}
    rna_alone = corrections(evidence(gone, data.stratum))
    without = data.values["protein"].isnan().all(1)
    assert torch.equal(both[without], rna_alone[without])
    assert not torch.equal(both[~without], rna_alone[~without])
    nothing = {name: torch.full_like(v, torch.nan) for name, v in data.values.items()}
    assert (corrections(evidence(nothing, data.stratum)) == 0).all()


def test_an_unknown_stratum_gets_no_correction():
    corrections, data = random_corrections()
    shift = corrections(evidence(data.values, torch.full_like(data.stratum, -1)))
    assert (shift == 0).all()


def test_a_hole_is_the_mean_of_the_stratum_and_an_outlier_is_bounded():
    corrections, data = random_corrections()
    components = corrections.components["rna"]
    one = data.values["rna"][data.values["rna"].isfinite().all(1)][:1].clone()
    stratum = torch.zeros(1, dtype=torch.long)
    one[0, 3] = torch.nan
    filled = one.clone()
    filled[0, 3] = components.mean[0, 3]
    torch.testing.assert_close(components(one, stratum), components(filled, stratum))
    assert (components(one * 1e6, stratum).abs() <= 4).all()


@pytest.mark.parametrize("patients", [0, 1])
def test_a_modality_hardly_anybody_has_corrects_nothing_and_breaks_nothing(patients):
    data, inner, cuts = draw(seed=0)
    rare = torch.full_like(data.values["protein"], torch.nan)
    rare[:patients] = 1.0
    data = data._replace(values={**data.values, "protein": rare})
    head, gains = fit(data, inner, cuts)
    assert not [name for name, _ in gains if name == "protein"]
    values = {**data.values, "protein": torch.ones_like(rare)}
    assert head(evidence(values, data.stratum, data.score)).isfinite().all()


def test_components_are_whitened_on_the_training_patients():
    data, *_ = draw(seed=0)
    values = data.values["rna"]
    components = Components(FEATURES, 2).fit(values, data.stratum)
    has = values.isfinite().any(1)
    scores = components(values, data.stratum)[has]
    assert scores.shape[1] == COMPONENTS
    np.testing.assert_allclose(scores.std(0).numpy(), 1.0, atol=0.1)
