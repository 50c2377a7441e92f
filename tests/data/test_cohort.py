"""Cohorts: assembled from files or given directly, subset, compared, and taken elsewhere."""

from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import yaml

from omnisurv.data.cohort import Cohort
from omnisurv.errors import DataError, SpecError


def values(ids, features=4, seed=0, **uns) -> anndata.AnnData:
    rng = np.random.default_rng(seed)
    return anndata.AnnData(
        rng.normal(size=(len(ids), features)).astype(np.float32),
        obs=pd.DataFrame(index=list(ids)),
        var=pd.DataFrame(index=[f"f{i}" for i in range(features)]),
        uns=uns,
    )


@pytest.fixture
def cohort() -> Cohort:
    """Ten patients; rna of six, protein of four, one with neither, one without endpoint."""
    ids = [f"P{i}" for i in range(10)]
    obs = pd.DataFrame(
        {
            "time": [0.0, *range(1, 10)],
            "event": [1, 0] * 5,
            "subtype": pd.Categorical(["a", "b"] * 5, categories=["b", "a"]),
        },
        index=ids,
    )
    return Cohort(
        obs,
        {
            "rna": values(["P5", "P0", "P1", "P2", "P3", "P4"]),
            "protein": values(["P4", "P5", "P6", "P7"], 3, 1),
        },
    )


# ---------------------------------------------------------------- given directly


def test_rows_are_in_cohort_order(cohort: Cohort) -> None:
    assert list(cohort["rna"].obs_names) == ["P0", "P1", "P2", "P3", "P4", "P5"]
    original = values(["P5", "P0", "P1", "P2", "P3", "P4"])
    np.testing.assert_array_equal(cohort["rna"]["P5"].X, original["P5"].X)


def test_availability_says_who_has_what(cohort: Cohort) -> None:
    assert cohort.availability.dtypes.eq(bool).all()
    assert cohort.availability["rna"].sum() == 6
    assert not cohort.availability.loc["P8"].any()
    assert cohort.modalities == ["rna", "protein"]
    assert "rna" in cohort


def test_a_row_without_any_value_is_a_missing_modality() -> None:
    data = values(["P0", "P1", "P2"])
    data.X[1] = np.nan
    cohort = Cohort(pd.DataFrame(index=["P0", "P1", "P2"]), {"rna": data})
    assert cohort.availability["rna"].tolist() == [True, False, True]
    assert list(cohort["rna"].obs_names) == ["P0", "P2"]
    assert cohort.obs[["time", "event"]].isna().all(axis=None)


def test_infinite_values_are_refused() -> None:
    data = values(["P0", "P1"])
    data.X[0, 0] = np.inf
    with pytest.raises(DataError, match=r"'rna' has 1 infinite values, in f0; make NaN of what"):
        Cohort(pd.DataFrame(index=["P0", "P1"]), {"rna": data})


def test_endpoint_is_usable_or_not(cohort: Cohort) -> None:
    assert cohort.has_endpoint.sum() == 9
    assert "P0" not in cohort.with_endpoint().patients


def test_subset_and_drop(cohort: Cohort) -> None:
    part = cohort.subset(["P6", "P4"])
    assert list(part.patients) == ["P4", "P6"]
    assert list(part["protein"].obs_names) == ["P4", "P6"]
    assert part.availability.columns.tolist() == ["rna", "protein"]
    assert cohort.drop_modalities(["rna"]).modalities == ["protein"]
    assert len(cohort) == 10


def test_a_modality_nobody_of_a_subset_has_is_empty(cohort: Cohort) -> None:
    part = cohort.subset(["P8", "P9"])
    assert part["rna"].n_obs == 0
    assert part.summary().loc["rna", "patients"] == 0


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda c: c["rma"], "the cohort has no modality 'rma'. Did you mean 'rna'"),
        (lambda c: c.drop_modalities(["rma"]), "no modality 'rma'. Did you mean 'rna'"),
        (
            lambda c: c.subset(["P1", "Q1"]),
            "1 patients are not in the cohort: Q1; its ids look like",
        ),
        (lambda c: c.require_disjoint(c.subset(["P1"])), "1 patients are in both cohorts: P1"),
    ],
)
def test_mistakes_are_said(cohort: Cohort, act, sentence) -> None:
    with pytest.raises(DataError, match=sentence):
        act(cohort)


def test_disjoint_cohorts_pass(cohort: Cohort) -> None:
    cohort.subset(["P0"]).require_disjoint(cohort.subset(["P1"]))


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize(
    ("obs", "data", "sentence"),
    [
        (["P0", "P0"], ["P0"], "1 patients have more than one row: P0"),
        (["P0", "P1"], ["P1", "P1"], "modality 'rna' has more than one row of P1"),
        (["P0", "P1"], ["P2"], "modality 'rna' has patients that obs lacks: P2"),
    ],
)
def test_duplicates_and_strangers_are_errors(obs, data, sentence) -> None:
    with pytest.raises(DataError, match=sentence):
        Cohort(pd.DataFrame(index=obs), {"rna": values(data)})


def test_events_are_0_or_1() -> None:
    with pytest.raises(DataError, match="event must be 0, 1 or missing; it is not for P1"):
        Cohort(pd.DataFrame({"time": 1.0, "event": [1, 2]}, index=["P0", "P1"]), {})


def test_hashes_and_fingerprint(cohort: Cohort) -> None:
    import hashlib

    hashes = cohort.hashed_ids()
    assert hashes[0] == hashlib.sha256(b"P0").hexdigest()[:16]
    assert len(set(hashes)) == 10
    same = Cohort(cohort.obs.iloc[::-1], {n: cohort[n].copy() for n in cohort.modalities})
    assert same.fingerprint() == cohort.fingerprint()
    same["rna"].X[0, 0] += 1
    assert same.fingerprint() != cohort.fingerprint()
    assert cohort.subset(cohort.patients[1:]).fingerprint() != cohort.fingerprint()


def test_summary_and_display(cohort: Cohort) -> None:
    summary = cohort.summary()
    assert summary.loc["rna"].tolist() == [6, 2, 4, 0.0]
    assert "10 patients, 9 with endpoint, 4 events" in repr(cohort)
    assert "<table" in cohort._repr_html_()


# ---------------------------------------------------------------- MuData


@pytest.mark.filterwarnings("ignore::DeprecationWarning:mudata", "ignore::FutureWarning:anndata")
def test_mudata_keeps_everything(cohort: Cohort, tmp_path) -> None:
    cohort.to_mudata().write_h5mu(tmp_path / "cohort.h5mu")
    back = Cohort.from_mudata(mudata.read_h5mu(tmp_path / "cohort.h5mu"))
    pd.testing.assert_frame_equal(back.obs, cohort.obs)
    pd.testing.assert_frame_equal(back.availability, cohort.availability)
    assert back.fingerprint() == cohort.fingerprint()


def test_mudata_of_others_needs_time_and_event(cohort: Cohort) -> None:
    data = cohort.to_mudata()
    del data.uns["omnisurv"]
    assert list(Cohort.from_mudata(data).patients) == list(data.obs_names)
    data.obs = data.obs.drop(columns="time")
    with pytest.raises(DataError, match=r"mudata\.obs has no column \['time'\]"):
        Cohort.from_mudata(data)


# ---------------------------------------------------------------- from a spec


@pytest.fixture
def files(survival, tmp_path):
    """A spec with a clinical table, rna of the first 40 of 60 patients and cnv of the last 40."""
    survival(60)
    table = pd.read_csv(tmp_path / "clinical.tsv", sep="\t")
    rng = np.random.default_rng(0)
    for name, ids in (("rna", table["patient"][:40]), ("cnv", table["patient"][20:])):
        frame = pd.DataFrame(rng.normal(size=(40, 5)), ids, [f"G{i}" for i in range(5)])
        frame.to_csv(tmp_path / f"{name}.csv")
    spec = {
        "name": "toy",
        "endpoint": {"table": "clinical.tsv", "time": "time", "event": "event"},
        "labels": {
            "subtype": {"table": "clinical.tsv", "column": "subtype", "classes": ["b", "a"]}
        },
        "strata": ["subtype"],
        "modalities": {
            "clinical": {
                "kind": "table",
                "source": {"format": "table", "path": "clinical.tsv"},
                "columns": {"age": "continuous"},
            },
            "rna": {"kind": "rna", "source": {"format": "matrix", "path": "rna.csv"}},
            "cnv": {"kind": "table", "source": {"format": "matrix", "path": "cnv.csv"}},
        },
        "splits": {"group": "tissue_source_site", "stratify": ["event", "subtype"], "folds": 3},
    }

    def load(**changes):
        merged = {**spec, **changes}
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(merged))
        return Cohort.from_spec(tmp_path / "spec.yaml")

    load.spec = spec
    load.table = table
    return load


def test_a_cohort_is_read_from_its_spec(files) -> None:
    cohort = files()
    assert len(cohort) == 60
    assert cohort.availability.sum().tolist() == [60, 40, 40]
    assert cohort.obs["subtype"].cat.categories.tolist() == ["b", "a"]
    assert cohort.obs["group"].nunique() == 6  # hospitals, from the barcodes
    assert cohort["rna"].uns["scale"] == "z-score"
    assert set(cohort.audit["status"]) <= {"kept", "dropped", "warning"}
    dev, test = cohort.split()
    assert not set(dev.obs["group"]) & set(test.obs["group"])
    dev.require_disjoint(test)


def test_tables_that_share_nobody_show_their_ids(files, tmp_path) -> None:
    pd.DataFrame({"G1": [1.5, -2.0]}, index=["TCGA-ZZ-0001", "TCGA-ZZ-0002"]).to_csv(
        tmp_path / "cnv.csv"
    )
    with pytest.raises(
        DataError,
        match=r"modality 'cnv' \(cnv\.csv\) and the endpoint \(clinical\.tsv\) "
        r"share no patient: TCGA-ZZ-0001, TCGA-ZZ-0002 against TCGA-AX-0000, TCGA-",
    ):
        files()


def test_strangers_are_kept_for_pre_training(files, tmp_path) -> None:
    frame = pd.read_csv(tmp_path / "cnv.csv", index_col=0)
    frame.loc["TCGA-ZZ-0001"] = 1.5
    frame.to_csv(tmp_path / "cnv.csv")
    cohort = files()
    assert len(cohort) == 61
    assert not cohort.has_endpoint["TCGA-ZZ-0001"]
    assert any("1 patients are not in the endpoint table" in line for line in cohort.warnings)


def test_patients_with_nothing_are_named(files) -> None:
    parts = {"rna": files.spec["modalities"]["rna"]}
    cohort = files(modalities=parts)
    assert len(cohort) == 40
    assert any("20 patients have none of the modalities" in line for line in cohort.warnings)


def test_a_modality_nobody_has_is_an_error(files, tmp_path) -> None:
    frame = pd.read_csv(tmp_path / "cnv.csv", index_col=0)
    (frame * np.nan).to_csv(tmp_path / "cnv.csv")
    with pytest.raises(DataError, match="modality 'cnv': nobody has it"):
        files()


def test_zeros_are_values_and_a_warning(files, tmp_path) -> None:
    frame = pd.read_csv(tmp_path / "rna.csv", index_col=0)
    frame.iloc[3] = 0.0
    frame.to_csv(tmp_path / "rna.csv")
    cnv = pd.read_csv(tmp_path / "cnv.csv", index_col=0)
    (cnv * 0).to_csv(tmp_path / "cnv.csv")
    warnings = files().warnings
    assert any("all values are 0 for 1 patients (TCGA-DX-0003)" in line for line in warnings)
    assert any(
        line.startswith("cnv: cnv.csv: all values are 0: zeros are values") for line in warnings
    )


def test_errors_name_the_modality(files, tmp_path) -> None:
    (tmp_path / "rna.csv").unlink()
    with pytest.raises(DataError, match=r"modality 'rna': there is no file .*rna\.csv\. .*Known"):
        files()


def test_inverted_events_are_questioned(files, survival, tmp_path) -> None:
    table = pd.read_csv(survival(200), sep="\t")
    table["event"] = 1 - table["event"]
    table.to_csv(tmp_path / "clinical.tsv", sep="\t", index=False)
    with pytest.raises(DataError, match="'event' looks like censorship"):
        files()


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [(["x", "y"], r"none of the classes \['x', 'y'\] of label 'subtype', but a, b"), (["a"], None)],
)
def test_classes_that_no_value_has(files, classes, sentence) -> None:
    label = {"table": "clinical.tsv", "column": "subtype", "classes": classes}
    if sentence:
        with pytest.raises(DataError, match=sentence):
            files(labels={"subtype": label})
    else:
        cohort = files(labels={"subtype": label})
        assert any("'subtype' is unknown for" in line for line in cohort.warnings)
        assert cohort.obs["subtype"].isna().any()


def test_classes_can_gather_values(files) -> None:
    label = {"table": "clinical.tsv", "column": "subtype", "classes": {"one": ["a", "b"]}}
    assert files(labels={"subtype": label}).obs["subtype"].eq("one").all()


def test_a_group_column_that_no_table_has(files) -> None:
    with pytest.raises(DataError, match=r"splits\.group: clinical\.tsv has no column 'hospitl'"):
        files(splits={"group": "hospitl"})


def test_a_split_table_is_followed(files, tmp_path) -> None:
    ids = files.table["patient"]
    split = pd.DataFrame(
        {"patient": ids, "split": ["test"] * 20 + ["train"] * 40, "fold": [None] * 20 + [0, 1] * 20}
    )
    split.iloc[:59].to_csv(tmp_path / "splits.csv", index=False)
    cohort = files(splits={"table": "splits.csv"})
    dev, test = cohort.split()
    assert (len(dev), len(test)) == (39, 20)
    assert [len(part) for _, part in dev.folds()] == [20, 19]
    assert len(dev.folds(n=3)) == 3
    assert any("1 patients are in no split" in line for line in cohort.warnings)
    split.assign(split="tst").to_csv(tmp_path / "splits.csv", index=False)
    with pytest.raises(DataError, match="split is 'train' or 'test', not tst"):
        files(splits={"table": "splits.csv"})


def test_without_endpoint_a_cohort_can_still_be_imputed(files) -> None:
    spec = {"endpoint": None, "labels": {}, "strata": [], "splits": {"folds": 3}}
    cohort = files(**spec)
    assert not cohort.has_endpoint.any()
    dev, test = cohort.split()
    assert len(dev) + len(test) == 60
    assert len(cohort.folds()) == 3


def test_unknown_spec_keys_are_spec_errors(files) -> None:
    with pytest.raises(
        SpecError, match=r"spec\.yaml: unknown key 'lables'\. Did you mean 'labels'"
    ):
        files(lables={})


def test_redacted_patients_are_left_out(files, tmp_path) -> None:
    table = files.table.assign(Redaction=["Redacted"] + [""] * 59)
    table.to_csv(tmp_path / "clinical.tsv", sep="\t", index=False)
    cohort = files()
    assert len(cohort) == 59
    assert table["patient"][0] not in cohort.patients
    assert "redacted: left out of the cohort" in set(cohort.audit["reason"])


def test_own_ids_that_look_like_numbers(files, tmp_path) -> None:
    table = files.table.drop(columns="patient")
    ids = [f"{i:03d}" for i in range(60)]
    table.assign(patient_id=ids).to_csv(tmp_path / "clinical.tsv", sep="\t", index=False)
    values = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), ids, ["A1", "B2", "C3"])
    values.T.to_csv(tmp_path / "rna.csv")
    values.assign(patient=ids).to_csv(tmp_path / "cnv.csv")
    cohort = files(patients={"id": "column"}, splits={})
    assert list(cohort.patients) == ids
    assert cohort["cnv"].n_vars == 3


def test_a_gdc_download_is_read_by_its_shipped_spec(gdc, tmp_path) -> None:
    rows = [
        "case_submitter_id\tproject_id\tage_at_index\tgender\tvital_status\tdays_to_death\t"
        "days_to_last_follow_up\ttreatment_type"
    ]
    follow_ups = ["cases.submitter_id\tfollow_ups.days_to_follow_up"]
    for i in range(12):
        case = f"TCGA-{'ABCDEF'[i % 6]}X-{i:04d}"
        project, dead = ("TCGA-GBM", i % 4 < 3) if i % 2 else ("TCGA-LGG", i % 4 == 0)
        said = f"Dead\t{100 + i}\t'--" if dead else "Alive\t'--\t'--"
        for therapy in ("Radiation", "Pharmaceutical"):
            rows.append(f"{case}\t{project}\t{40 + i}\tmale\t{said}\t{therapy}")
        follow_ups += [f"{case}\t10", f"{case}\t{200 + i}"]
        primary = {"tissue_type": "Tumor", "tumor_descriptor": "Primary", "project": project}
        gdc.star(f"{case}-01A", 1.0 + i, **primary)
        gdc.betas(
            f"{case}-01A",
            {"cg00000001": 0.1 + i / 20, "cg00000002": "NA", "cg0000003": 0.5},
            **primary,
        )
    rows[1] = rows[1].replace("male", "female")
    rows[2] = rows[2].replace("male", "female")
    (tmp_path / "clinical.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "follow_up.tsv").write_text("\n".join(follow_ups) + "\n")
    gdc.sheet()
    shipped = Path(__file__).parents[2] / "data_specs" / "tcga_glioma_gdc.yaml"
    cohort = Cohort.from_spec(shipped, tmp_path)
    assert cohort.availability.sum().tolist() == [12, 12, 12]
    assert cohort.obs["subtype"].value_counts().to_dict() == {"LGG": 6, "GBM": 6}
    assert cohort.obs.loc["TCGA-CX-0002", ["time", "event"]].tolist() == [202, 0]
    assert cohort.obs.loc["TCGA-AX-0000", ["time", "event"]].tolist() == [100, 1]
