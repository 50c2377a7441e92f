"""Scales, filters and orders of feature tables."""

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from omnisurv.errors import DataError, SpecError
from omnisurv.features import chunk, fit_scale, keep_features, order_features
from omnisurv.modalities.dnam import Dnam, DnamOptions
from omnisurv.modalities.rna import Rna, RnaOptions
from omnisurv.modalities.table import Table, TableOptions


def table(values, **var):
    values = np.asarray(values, dtype=np.float32)
    names = [f"f{i}" for i in range(values.shape[1])]
    return anndata.AnnData(
        values,
        obs=pd.DataFrame(index=[f"p{i}" for i in range(len(values))]),
        var=pd.DataFrame(var, index=names),
    )


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(
        float, st.tuples(st.integers(3, 12), st.integers(1, 6)), elements=st.floats(0, 1000)
    ),
    st.sampled_from(["identity", "ln1p", "m-value"]),
    st.booleans(),
    st.booleans(),
)
def test_every_scale_is_invertible(values, shape, knee, by_patient):
    if shape == "m-value":
        values = values / 1000
    by_patient = by_patient and shape == "ln1p"
    scale = fit_scale(values, shape, knee=knee, by_patient=by_patient, standardise=not by_patient)
    back = scale.invert(scale.apply(values))
    np.testing.assert_allclose(back, values, rtol=1e-6, atol=1e-6 * (1 + values.max()))


def test_a_value_of_3500_neither_rules_the_scale_nor_is_lost():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(200, 1))
    values[7] = 3500.0
    scale = fit_scale(values, "identity")
    z = scale.apply(values)
    assert z[7, 0] < 30
    assert np.std(np.delete(z, 7)) == pytest.approx(1.0, abs=0.25)
    assert scale.invert(z)[7, 0] == pytest.approx(3500.0, rel=1e-6)


def test_imputmae_normalises_by_the_patients_own_median():
    values = np.array([[0.0, 1.0, 3.0, 7.0, 100.0], [5.0, 5.0, 5.0, 5.0, 5.0]])
    scale = fit_scale(values, "ln1p", standardise=False, by_patient=True)
    z = scale.apply(values)
    np.testing.assert_allclose(z[0, :5], np.log1p(values[0]) / np.log1p(3.0))
    assert z[0, 5] == pytest.approx(np.log1p(3.0))  # the median travels along
    np.testing.assert_allclose(z[1, :5], 1.0)


def test_filters_judge_training_values():
    data = table([[0, 1, np.nan, 5], [0, 2, np.nan, 5.05], [0, 3, 1.0, 5]])
    assert keep_features(data, max_missing=0.5).tolist() == [1, 3]
    assert keep_features(data, min_sd=0.1).tolist() == [1]
    assert keep_features(data, max_missing=0.7, top_variance=1).tolist() == [1]


def test_no_feature_left_says_what_to_lower():
    with pytest.raises(DataError, match="no feature is left of 2: all have a standard deviation"):
        keep_features(table([[1, 1], [1, 1]]))


def test_correlated_features_end_side_by_side():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 300, 1))
    data = table(np.hstack([a, b, a + 0.1 * b, b + 0.1 * a, -a]))
    order = order_features(data, "correlation").tolist()
    halves = {frozenset(order[:3]), frozenset(order[:2])}
    assert frozenset({0, 2, 4}) in halves or frozenset({1, 3}) in halves


def test_chromosome_order_needs_positions():
    data = table(np.eye(3), chromosome=["2", "1", "1"], start=[5, 9, 2])
    assert order_features(data, "chromosome").tolist() == [2, 1, 0]
    with pytest.raises(SpecError, match=r"order: chromosome needs the feature columns"):
        order_features(table(np.eye(3)), "chromosome")


def test_variance_order_puts_the_most_variable_first():
    assert order_features(table([[0, 0, 0], [1, 9, 3]]), "variance").tolist() == [1, 2, 0]


def test_chunks_cover_everything_once():
    assert chunk(5, 2) == [[0, 1], [2, 3], [4]]


def test_another_scale_than_the_models_is_refused():
    rna, data = Rna.example(np.random.default_rng(0))
    tokeniser = rna.fit(data)
    logged = data.copy()
    logged.uns["scale"] = "log2"
    with pytest.raises(DataError, match="on the scale 'log2', the model was fitted on 'linear'"):
        tokeniser.tokenise(logged)


def test_a_table_without_any_known_feature_is_refused():
    rna, data = Rna.example(np.random.default_rng(0))
    tokeniser = rna.fit(data)
    data.var_names = [f"gene{i}" for i in range(data.n_vars)]
    with pytest.raises(DataError, match=r"no feature of the table is one the model knows"):
        tokeniser.tokenise(data)


def test_betas_of_zero_and_one_survive_m_values():
    data = table([[0.0, 0.2], [1.0, 0.4], [0.5, 0.9], [0.3, 0.1]])
    data.uns["scale"] = "beta"
    tokeniser = Dnam("dnam", DnamOptions()).fit(data)
    back = tokeniser.untokenise(tokeniser.tokenise(data), list(data.obs_names))
    np.testing.assert_allclose(back[:, ["f0"]].X[:, 0], [0, 1, 0.5, 0.3], atol=1e-6)
    far = tokeniser.untokenise(np.full((1, 1, tokeniser.width), 50.0), ["p"])
    assert ((far.X >= 0) & (far.X <= 1)).all()


def test_patches_of_a_table_follow_named_groups():
    data = table(np.random.default_rng(0).normal(size=(20, 6)))
    options = TableOptions(groups={"first": ("f3", "f0"), "second": ("f5",)})
    tokeniser = Table("t", options).fit(data)
    groups = [[tokeniser.features[i] for i in group] for group in tokeniser.groups]
    assert groups == [["f0", "f3"], ["f5"], ["f1", "f2", "f4"]]
    wrong = TableOptions(groups={"first": ("f33",)})
    with pytest.raises(SpecError, match=r"groups.first: unknown column 'f33'. Did you mean 'f3'"):
        Table("t", wrong).fit(data)


def test_normalising_by_patient_refuses_values_that_are_not_raw():
    rna = Rna("rna", RnaOptions(normalise="patient"))
    data = table(np.random.default_rng(0).normal(size=(20, 6)))
    data.uns["scale"] = "z-score"
    with pytest.raises(DataError, match="`normalise: patient` divides by the patient's median"):
        rna.fit(data)
