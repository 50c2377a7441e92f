"""MuData files: as a source of a spec, as its endpoint, and without any spec."""

import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import tiny
from anndata import AnnData

import omnisurv as om
from omnisurv.data.cohort import Cohort
from omnisurv.data.spec import DataSpec
from omnisurv.errors import DataError
from omnisurv.inspection import inspect

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:anndata"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mudata"),
]
PATIENTS = [f"P{i:02d}" for i in range(40)]


def table(patients, columns, seed, **uns):
    values = np.exp(np.random.default_rng(seed).normal(3, 1.5, (len(patients), len(columns))))
    obs, var = pd.DataFrame(index=patients), pd.DataFrame(index=columns)
    return AnnData(values.astype(np.float32), obs=obs, var=var, uns=uns)


def another():
    """Return what somebody else would have: P00 to P09 lack RNA, P39 has a row of NaN."""
    rna = table(PATIENTS[10:], [f"GENE{i}" for i in range(6)], 0)
    rna.X[0, 0] = 900.0
    rna.X[-1] = np.nan
    clinical = table(PATIENTS, ["age"], 1)
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData({"rna": rna, "clinical": clinical})
    draw = np.random.default_rng(2)
    data.obs["time"] = np.ceil(draw.exponential(500, data.n_obs))
    data.obs["event"] = draw.random(data.n_obs) < 0.7
    data.obs["hospital"] = pd.Categorical(draw.choice(["A", "B"], data.n_obs))
    return data


def spec(**rna):
    source = {"format": "mudata", "path": "cohort.h5mu"}
    return DataSpec.parse(
        {
            "name": "theirs",
            "patients": {"id": "column"},
            "endpoint": {"table": "cohort.h5mu", "time": "time", "event": "event"},
            "labels": {"hospital": {"table": "cohort.h5mu", "column": "hospital"}},
            "modalities": {
                "rna": {"kind": "rna", "source": {**source, **rna}},
                "clinical": {"kind": "table", "source": source},
            },
        }
    )


@pytest.fixture
def folder(tmp_path):
    with mudata.set_options(pull_on_update=False):
        another().write_h5mu(tmp_path / "cohort.h5mu")
    return tmp_path


def test_a_spec_reads_modalities_endpoint_and_labels(folder):
    data = another()
    cohort = Cohort.from_spec(spec(), folder)
    assert list(cohort.patients) == PATIENTS
    assert cohort.availability["rna"].sum() == 29
    assert not cohort.availability["rna"][["P00", "P39"]].any()
    assert cohort.availability["clinical"].all()
    np.testing.assert_array_equal(cohort["rna"].X, data["rna"].X[:-1])
    assert cohort["rna"].uns["scale"] == "linear"
    expected = data.obs.loc[PATIENTS]
    np.testing.assert_array_equal(cohort.obs["time"], expected["time"])
    np.testing.assert_array_equal(cohort.obs["event"], expected["event"].astype(float))
    assert cohort.obs["hospital"].tolist() == expected["hospital"].tolist()
    told = inspect(cohort).modalities.set_index("modality")
    assert told.loc["rna", "patients"] == 29


def test_without_a_spec_kinds_and_scales_are_told_by_names_and_values():
    cohort = Cohort.from_mudata(another())
    assert {n: m.kind for n, m in cohort.spec.modalities.items()} == {
        "rna": "rna",
        "clinical": "table",
    }
    assert cohort.availability["rna"].sum() == 29
    assert cohort["rna"].uns["scale"] == "linear"
    assert cohort["clinical"].var["type"].tolist() == ["continuous"]
    dev, test = cohort.split()
    model = om.finetune(om.pretrain(tiny.recipe(), dev), dev)
    assert np.isfinite(model.predict(test)).all()


def test_what_we_wrote_is_read_by_a_spec(tmp_path):
    cohort = tiny.parts()[1]
    with mudata.set_options(pull_on_update=False):
        cohort.to_mudata().write_h5mu(tmp_path / "ours.h5mu")
    source = {"format": "mudata", "path": "ours.h5mu"}
    told = {
        "name": "ours",
        "patients": {"id": "tcga"},
        "endpoint": {"table": "ours.h5mu", "time": "time", "event": "event"},
        "modalities": {
            name: {"kind": cohort.spec.modalities[name].kind, "source": source}
            for name in cohort.modalities
        },
    }
    again = Cohort.from_spec(DataSpec.parse(told), tmp_path)
    pd.testing.assert_frame_equal(
        again.availability, cohort.availability.loc[again.patients, again.modalities]
    )
    for name in cohort.modalities:
        both = again[name].to_df().reindex(columns=cohort[name].var_names)
        pd.testing.assert_frame_equal(both, cohort[name].to_df(), check_names=False)
        assert again[name].uns["scale"] == cohort[name].uns["scale"]
    assert again["clinical"].var["type"].tolist() == cohort["clinical"].var["type"].tolist()


def test_another_name_and_names_with_the_modality_in_front(folder):
    data = another()
    genes = data["rna"].copy()
    genes.var_names = [f"expression:{name}" for name in genes.var_names]
    with mudata.set_options(pull_on_update=False):
        both = mudata.MuData({"expression": genes, "clinical": data["clinical"]})
        both.obs = data.obs.reindex(both.obs_names)
        both.write_h5mu(folder / "cohort.h5mu")
    cohort = Cohort.from_spec(spec(modality="expression", scale="linear"), folder)
    assert list(cohort["rna"].var_names) == [f"GENE{i}" for i in range(6)]
    with pytest.raises(DataError, match=r"has no modality 'rna'\. Known: clinical, expression"):
        Cohort.from_spec(spec(), folder)


def test_what_is_no_mudata_file(folder):
    with h5py.File(folder / "cohort.h5mu", "a") as file:
        del file["mod"]
    with pytest.raises(DataError, match="is no MuData file: it has no modalities"):
        Cohort.from_spec(spec(), folder)
    (folder / "cohort.h5mu").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"cohort\.h5mu cannot be read as a table"):
        Cohort.from_spec(spec(), folder)


def test_an_ambiguous_scale_says_where_to_write_it():
    data = another()
    data["rna"].X[:] = np.linspace(26, 45, data["rna"].X.size).reshape(data["rna"].X.shape)
    with pytest.raises(DataError, match=r'mdata\["rna"\]\.uns\["scale"\]: the scale is ambiguous'):
        Cohort.from_mudata(data)
