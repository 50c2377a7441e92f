"""What modalities say by themselves: found where it is, joined by how far they say the same."""

import numpy as np
import pytest
import torch

from omnisurv.core import Latent
from omnisurv.head import Evidence
from omnisurv.heads.corrections import Corrections
from omnisurv.heads.linear import Discrete
from omnisurv.heads.marginals import SHARE, Marginals, fit_marginals
from omnisurv.heads.survival import LogisticHazard, TimeGrid, curves
from omnisurv.metrics import concordance_harrell

N, FEATURES = 400, 12
NAMES = ("slide", "rna", "noise")


def draw(seed, effect=1.0, twins=False):
    """Draw a factor that drives the hazard and that slide and rna show; a third shows nothing.

    Slide and rna err apart, or (``twins``) are the same.
    """
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=N)
    shown = {name: factor + 1.2 * rng.normal(size=N) for name in ("slide", "rna")}
    if twins:
        shown["rna"] = shown["slide"]
    values = {}
    for name in NAMES:
        own = shown.get(name, rng.normal(size=N))
        full = own[:, None] * rng.normal(size=FEATURES) + 0.3 * rng.normal(size=(N, FEATURES))
        full[rng.random(N) < 0.25] = np.nan
        values[name] = torch.tensor(full, dtype=torch.float32)
    death, left = rng.exponential(800 * np.exp(-effect * factor)), rng.uniform(100, 3000, N)
    time, event = np.minimum(death, left) + 1, death <= left
    grid = TimeGrid.fit(time, event, 12, "quantiles")
    interval, happened = grid.transform(time, event)
    target = Discrete(torch.tensor(interval), torch.tensor(happened).float())
    order = torch.tensor(rng.permutation(N) % 5)
    return values, target, [order == fold for fold in range(5)], (time, event), grid


def fit(values, target, inner, cuts):
    """Return a head whose linear path is the baseline alone, and the gains of the marginals."""
    marginals = Marginals(dict.fromkeys(values, FEATURES))
    head = LogisticHazard(
        cuts, 2, corrections=Corrections(dict.fromkeys(values, FEATURES), 1), marginals=marginals
    )
    head.fit_path(torch.zeros(len(target.event), 2), target, 20.0)
    gains = fit_marginals(marginals, values, target, head.baseline.detach(), inner)
    return head, gains


@pytest.fixture(scope="module")
def trained():
    values, target, inner, endpoint, grid = draw(seed=0)
    head, gains = fit(values, target, inner, len(grid.cuts))
    return head, gains, values, endpoint


def only(values, *names):
    return {n: v if n in names else torch.full_like(v, torch.nan) for n, v in values.items()}


def evidence(values, known, completed=0.0):
    """Return evidence of patients whose clinical table is measured, or imputed."""
    n = len(values["rna"])
    nothing = torch.zeros(n, 0)
    latent = Latent(torch.zeros(n, 4), torch.zeros(n, 0, 4), nothing.bool(), nothing.long(), ())
    imputed = torch.full((n, 2), not known)
    table = torch.full((n, 2), completed)
    return Evidence(latent, table, imputed, values, torch.zeros(n).long())


def c_index(risk, endpoint, has):
    time, event = endpoint
    return concordance_harrell(time[has], event[has], risk.detach().numpy()[has])


def test_a_modality_that_tells_of_the_hazard_is_found_and_ranks_new_patients(trained):
    head, gains, *_ = trained
    assert gains["slide"] > 5
    assert gains["rna"] > 5
    new, _, _, endpoint, _ = draw(seed=0)  # the loadings are drawn anew with another seed
    has = new["slide"].isfinite().any(1).numpy()
    found = c_index(head.marginals(only(new, "slide")), endpoint, has)
    assert found > 0.62
    both = has & new["rna"].isfinite().any(1).numpy()
    joined = c_index(head.marginals(only(new, "slide", "rna")), endpoint, both)
    assert joined > c_index(head.marginals(only(new, "slide")), endpoint, both) + 0.01


def test_it_ranks_patients_held_out():
    values, target, inner, endpoint, grid = draw(seed=1)
    train = torch.arange(N) < 280
    head, _ = fit(
        {n: v[train] for n, v in values.items()},
        target.rows(train.nonzero()[:, 0]),
        [out[train] for out in inner],
        len(grid.cuts),
    )
    rest = {n: v[~train] for n, v in only(values, "slide").items()}
    has = rest["slide"].isfinite().any(1).numpy()
    endpoint = tuple(part[~train.numpy()] for part in endpoint)
    assert c_index(head.marginals(rest), endpoint, has) > 0.6


def test_noise_moves_hardly_anybody():
    shifts = []
    for seed in range(20, 26):
        values, target, inner, _, grid = draw(seed, effect=0.0)
        head, _ = fit(values, target, inner, len(grid.cuts))
        shifts.append(float(head.marginals(values).std()))
    assert np.mean(shifts) < 0.1


def test_one_alone_counts_in_full(trained):
    head, _, values, _ = trained
    for name in ("slide", "rna"):
        has = values[name].isfinite().any(1)
        scores = head.marginals.scores(values)[has, NAMES.index(name)]
        shift = head.marginals(only(values, name))[has] - head.marginals.level
        torch.testing.assert_close(shift, scores, atol=1e-5, rtol=1e-4)
        assert float(scores.std()) > 0.2


def test_twins_are_averaged_not_added():
    values, target, inner, _, grid = draw(seed=2, twins=True)
    head, _ = fit(values, target, inner, len(grid.cuts))
    both = values["slide"].isfinite().any(1) & values["rna"].isfinite().any(1)
    scores = head.marginals.scores(values)[both][:, :2]
    joined = head.marginals(only(values, "slide", "rna"))[both] - head.marginals.level
    slope = float((joined * scores.sum(1)).sum() / scores.sum(1).square().sum())
    assert 0.45 < slope < 0.6  # 0.5 is their mean, 1 their sum


def test_unrelated_scores_are_added():
    marginals = Marginals({"a": FEATURES, "b": FEATURES})
    values = {n: torch.randn(50, FEATURES, generator=torch.manual_seed(1)) for n in "ab"}
    for name, weight in zip("ab", marginals.weights, strict=True):
        marginals.components[name].fit(values[name], torch.zeros(50).long())
        weight.fill_(0.3)
    marginals.covariance.copy_(torch.diag(torch.tensor([0.4, 0.2])))
    torch.testing.assert_close(marginals(values), marginals.scores(values).sum(1))


def test_an_absent_modality_contributes_exactly_nothing(trained):
    head, _, values, _ = trained
    without = only(values, "slide")
    shift = head.marginals(without)
    gone = values["slide"].isnan().all(1)
    assert (shift[gone] == head.marginals.level).all()
    fewer = head.marginals({n: v[:7] for n, v in without.items()})
    torch.testing.assert_close(fewer, shift[:7])  # nor do batch-mates


def test_only_patients_without_any_input_of_the_linear_path_are_affected(trained):
    head, _, values, _ = trained
    bare = LogisticHazard(len(head.baseline), 2, corrections=head.corrections)
    bare.load_state_dict(head.state_dict(), strict=False)
    assert torch.equal(head(evidence(values, known=True)), bare(evidence(values, known=True)))
    alone = head(evidence(values, known=False))
    assert not torch.equal(alone, bare(evidence(values, known=False)))
    shift = SHARE * head.marginals(values)[:, None]
    torch.testing.assert_close(alone, head.baseline + shift)


def test_the_completed_table_keeps_its_share(trained):
    head, _, values, _ = trained
    with torch.no_grad():
        head.linear.fill_(0.5)
        more = head(evidence(values, known=False, completed=1.0))
        less = head(evidence(values, known=False))
        head.linear.zero_()
    torch.testing.assert_close(more - less, torch.full_like(more, 1.0 - SHARE))


def test_without_a_linear_path_the_scores_are_all_there_is(trained):
    head, _, values, _ = trained
    marginals = head.marginals
    bare = LogisticHazard(len(head.baseline), 0, corrections=head.corrections, marginals=marginals)
    told = evidence(values, known=False)
    told = told._replace(completed=told.completed[:, :0], imputed=told.imputed[:, :0])
    expected = bare.baseline + marginals(values)[:, None]
    torch.testing.assert_close(bare(told), expected)


def test_of_whom_nothing_is_known_the_curve_is_that_of_all_patients(trained):
    head, _, values, (time, event) = trained
    nobody = only(values)
    S = curves(head(evidence(nobody, known=False)))[0].detach()
    *_, grid = draw(seed=0)
    for cut, found in zip(grid.cuts[1:-1], S[1:-1], strict=True):
        at_risk = (time >= cut) | event  # those whose state at the cut is known
        assert abs(float(found) - (time[at_risk] > cut).mean()) < 0.12, cut


@pytest.mark.parametrize("patients", [0, 1, 30])
def test_a_modality_hardly_anybody_has_says_nothing_and_breaks_nothing(patients):
    values, target, inner, _, grid = draw(seed=0)
    rare = torch.full_like(values["rna"], torch.nan)
    rare[:patients] = 1.0
    head, gains = fit({**values, "rna": rare}, target, inner, len(grid.cuts))
    assert "rna" not in gains
    shift = head.marginals({**only(values, "slide"), "rna": torch.ones_like(rare)})
    torch.testing.assert_close(shift, head.marginals(only(values, "slide")))


def test_fitting_twice_gives_the_same_bits():
    values, target, inner, _, grid = draw(seed=3)
    first, second = (fit(values, target, inner, len(grid.cuts))[0] for _ in range(2))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
