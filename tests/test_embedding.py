"""Where patients lie: from any subset, and on to scanpy."""

import mudata
import numpy as np
import pandas as pd
import pytest
import tiny

import omnisurv as om
from omnisurv.data.cohort import Cohort
from omnisurv.errors import DataError


@pytest.fixture(scope="module")
def filled():
    return om.impute(tiny.pretrained(), tiny.parts()[1])


def test_it_is_the_encoders_summary_of_the_first_member():
    _, test = tiny.parts()
    model = tiny.pretrained()
    found = om.embed(model, test)
    assert found.shape == (len(test), 16)
    assert found.index.equals(test.patients)
    batch = model.batch(test)
    expected = model.mae(0).encode(batch, batch.observed).summary.detach()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found.std().min() > 0.01
    two = om.pretrain(tiny.recipe(members=2, pretrain={"epochs": 1}), tiny.parts()[0])
    alone = two.mae(0).encode(batch, batch.observed).summary.detach()
    np.testing.assert_allclose(om.embed(two, test), alone, rtol=1e-5, atol=1e-6)


def test_any_subset_embeds_and_what_is_hidden_changes_nothing():
    _, test = tiny.parts()
    model = tiny.pretrained()
    few = om.embed(model, test, ["clinical", "cnv_arm"])
    others = [name for name in test.modalities if name not in ("clinical", "cnv_arm")]
    assert few.equals(om.embed(model, test.drop_modalities(others)))
    assert not few.equals(om.embed(model, test))
    companions = om.embed(model, test.subset(test.patients[:3]))
    pd.testing.assert_frame_equal(companions, om.embed(model, test).iloc[:3], rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match="Did you mean 'clinical'"):
        om.embed(model, test, ["clinial"])


def test_a_patient_with_nothing_lies_somewhere():
    _, test = tiny.parts()
    nobody = Cohort(
        test.obs.reindex([*test.patients, "NOBODY"]),
        {name: test[name] for name in test.modalities},
        test.spec,
    )
    assert np.isfinite(om.embed(tiny.pretrained(), nobody).loc["NOBODY"]).all()


def test_a_survival_model_embeds_as_what_it_was_tuned_from():
    _, test = tiny.parts()
    assert om.embed(tiny.survival(), test).equals(om.embed(tiny.pretrained(), test))


def test_completed_tables_carry_masks_bounds_endpoint_and_embedding(filled):
    _, test = tiny.parts()
    whole = filled.to_mudata()
    assert list(whole.obs_names) == list(test.patients)
    np.testing.assert_array_equal(whole.obs["time"], test.obs["time"])
    assert whole.obs["project"].tolist() == test.obs["project"].tolist()
    lacks = ~test.availability["rna"].to_numpy()
    assert lacks.any()
    assert not any("rna" in said.split("+") for said in whole.obs["evidence"][lacks])
    rna = whole["rna"]
    assert np.isfinite(rna.X).all()
    np.testing.assert_array_equal(rna.layers["imputed"].all(axis=1), lacks)
    assert (rna.layers["low"][lacks] < rna.layers["high"][lacks]).all()
    embedding = om.embed(tiny.pretrained(), test)
    for part in (whole, *whole.mod.values()):
        np.testing.assert_array_equal(part.obsm["X_omnisurv"], embedding)


def test_shared_names_get_their_modality_in_front(filled):
    from dataclasses import replace

    rna = filled.values["rna"]
    twice = replace(filled, values={"rna": rna, "cnv": rna.copy()}).to_mudata()
    assert twice.var_names.is_unique
    assert twice["cnv"].var_names[0] == f"cnv:{rna.var_names[0]}"
    assert not rna.var_names[0].startswith("rna:")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["rna", None])
def test_scanpy_runs_on_it_directly(filled, part, tmp_path):
    """On a table or on the whole, also after it was written and read."""
    import scanpy as sc

    path = tmp_path / "filled.h5mu"
    filled.to_mudata().write_h5mu(path)
    data = mudata.read_h5mu(path)
    data = data if part is None else data[part]
    sc.pp.neighbors(data, use_rep="X_omnisurv", n_neighbors=5)
    near = data.obsp["distances"]
    embedding = om.embed(tiny.pretrained(), tiny.parts()[1]).to_numpy()
    row, column = near.nonzero()
    np.testing.assert_allclose(
        np.asarray(near[row, column]).ravel(),
        np.linalg.norm(embedding[row] - embedding[column], axis=1),
        rtol=1e-3,
        atol=1e-4,
    )
    sc.tl.umap(data, maxiter=10)
    assert data.obsm["X_umap"].shape == (len(embedding), 2)
    pytest.importorskip("igraph")
    sc.tl.leiden(data, flavor="igraph", n_iterations=2)
    assert data.obs["leiden"].nunique() >= 1
