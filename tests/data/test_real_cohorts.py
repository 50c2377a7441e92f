"""The real cohorts beside the checkout, read whole."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from omnisurv.data.cohort import Cohort
from omnisurv.data.readers import ReadContext, read_matrix
from omnisurv.data.sources import MatrixSource
from omnisurv.data.spec import DataSpec, PatientRule
from omnisurv.errors import DataError

pytestmark = pytest.mark.realdata

SPECS = Path(__file__).parents[2] / "data_specs"


@pytest.fixture(scope="module")
def glioma(real_data: Path) -> Cohort:
    return Cohort.from_spec(SPECS / "tcga_glioma_matrices.yaml", real_data / "tcga_glioma")


def test_glioma_is_complete(glioma: Cohort) -> None:
    assert len(glioma) == 772
    assert int(glioma.has_endpoint.sum()) == 757
    assert int(glioma.obs["event"].sum()) == 439
    assert glioma.availability.sum().to_dict() == {
        "clinical": 772, "rna": 399, "protein": 267, "cnv": 399, "cnv_arm": 732,
        "mutation": 382, "dnam": 499, "radiomics": 116,
    }  # fmt: skip
    assert glioma.obs["subtype"].value_counts().to_dict() == {"GBM": 426, "LGG": 346}
    assert glioma["rna"].uns["scale"] == "z-score"
    assert glioma["dnam"].uns["scale"] == "beta"


def test_glioma_lists_who_has_no_usable_endpoint(glioma: Cohort) -> None:
    listed = glioma.audit[glioma.audit["reason"].str.contains("kept for pre-training")]
    assert {"TCGA-RR-A6KB", "TCGA-TQ-A7RS", "TCGA-CS-5390"} <= set(listed["patient"])
    assert len(listed) == 15
    assert set(listed["patient"]) <= set(glioma.patients)


def test_glioma_hospitals_stay_apart(glioma: Cohort) -> None:
    for train, test in [glioma.split(), *glioma.folds()]:
        assert not set(train.obs["group"]) & set(test.obs["group"])
        for _, stratum in test.with_endpoint().obs.groupby("subtype", observed=True):
            assert stratum["event"].sum() >= 5


def test_glioma_coded_as_censorship_is_questioned(real_data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(real_data / "tcga_glioma" / "clinical.tsv", sep="\t", dtype=str)
    table["OS"] = (1 - table["OS"].astype(float)).astype(str)
    table.to_csv(tmp_path / "clinical.tsv", sep="\t", index=False)
    spec = DataSpec.load(SPECS / "tcga_glioma_matrices.yaml")
    alone = {"clinical": spec.modalities["clinical"]}
    with pytest.raises(DataError, match="'OS' looks like censorship"):
        Cohort.from_spec(spec.model_copy(update={"modalities": alone}), tmp_path)


def test_acc_has_its_endpoint_in_three_columns(real_data: Path) -> None:
    cohort = Cohort.from_spec(SPECS / "tcga_acc.yaml", real_data / "tcga_acc")
    assert (len(cohort), int(cohort.obs["event"].sum())) == (92, 34)
    assert cohort.availability.sum().drop("clinical").tolist() == [79, 80, 46, 90, 90]
    assert cohort["rna"].uns["scale"] == "linear"
    assert cohort["mirna"].uns["scale"] == "counts"


@pytest.mark.parametrize(("name", "events"), [("tcga_hnsc", 197), ("tcga_paad", 90)])
def test_cbioportal_cohorts(real_data: Path, name: str, events: int) -> None:
    endpoint = {
        "table": "clinical.tsv",
        "time": "OS_MONTHS",
        "event": "OS_STATUS",
        "unit": "months",
    }
    parts = {
        part: {"kind": kind, "source": {"format": "matrix", "path": f"{part}.parquet"}}
        for part, kind in (("rna", "rna"), ("cnv", "table"), ("mutation", "table"))
    }
    spec = DataSpec.parse({"name": name, "endpoint": endpoint, "modalities": parts})
    cohort = Cohort.from_spec(spec, real_data / name)
    assert int(cohort.obs["event"].sum()) == events
    assert set(cohort["mutation"].var["type"]) == {"binary"}
    assert set(cohort["cnv"].var["type"]) == {"ordinal"}


@pytest.mark.parametrize(
    ("file", "kind", "scale", "features"),
    [
        ("rna_raw_count_LGG.csv.gz", "rna", "linear", 19947),
        ("matched20_rna_log2.csv.gz", "rna", "log2", None),
        ("matched20_dnam_beta.csv.gz", "dnam", "beta", 8066),
        ("dnam_450k_chr9_beta.csv.gz", "dnam", "beta", None),
    ],
)
def test_raw_matrices(real_data: Path, file: str, kind: str, scale: str, features) -> None:
    context = ReadContext(real_data / "raw_scale", PatientRule())
    data = read_matrix(MatrixSource(format="matrix", path=file), context, kind)
    assert data.n_obs == 20
    assert data.uns["scale"] == scale
    assert data.var_names.is_unique
    assert np.isfinite(data.X).any(axis=0).all()
    assert features is None or data.n_vars == features
