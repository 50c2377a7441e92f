"""DNA methylation betas of several arrays in one download."""

import numpy as np
import pytest

from omnisurv.data.readers import read_gdc_sesame
from omnisurv.data.sources import SesameSource
from omnisurv.errors import DataError

A, B, C = "TCGA-02-0001", "TCGA-02-0002", "TCGA-CS-0003"
SMALL = {"cg00000001": 0.1, "cg00000002": 0.2}
BIG = {"cg00000003": 0.3, "cg00000002": 0.9, "cg00000001": "NA", "ch.1.1F": 0.5, "rs01": 0.5}


def read(context, **keys):
    return read_gdc_sesame(SesameSource(format="gdc-sesame", path="dnam", **keys), context)


@pytest.fixture
def two_arrays(gdc):
    gdc.betas(f"{A}-01A", SMALL)
    gdc.betas(f"{B}-01A", SMALL)
    gdc.betas(f"{C}-01A", BIG)
    gdc.sheet()
    return gdc


def test_arrays_are_joined_with_holes(two_arrays, context, audit) -> None:
    data = read(context)
    assert list(data.var_names) == ["cg00000003", "cg00000002", "cg00000001", "ch.1.1F"]
    np.testing.assert_array_equal(
        data.X,
        np.float32(
            [[np.nan, 0.2, 0.1, np.nan], [np.nan, 0.2, 0.1, np.nan], [0.3, 0.9, np.nan, 0.5]]
        ),
    )
    assert data.uns["scale"] == "beta"
    assert data.obs["platform"].tolist() == ["2 probes", "2 probes", "5 probes"]
    assert "several platforms (2 probes: 2 patients, 5 probes: 1 patients)" in audit()
    assert "1 rs probes" in audit()


def test_shared_probes_only(two_arrays, context) -> None:
    assert list(read(context, probes="shared").var_names) == ["cg00000002", "cg00000001"]


def test_probes_of_a_list(two_arrays, context, tmp_path) -> None:
    (tmp_path / "mine.csv").write_text("probe\ncg00000003\ncg99999999\n")
    assert list(read(context, probes="mine.csv").var_names) == ["cg00000003"]


def test_whole_arrays_are_told_by_their_size(gdc, context) -> None:
    gdc.betas(f"{A}-01A", {f"cg{i:08d}": 0.5 for i in range(27_578)})
    gdc.sheet()
    assert read(context).obs["platform"].tolist() == ["27k"]
    with pytest.raises(DataError, match="platform 27k is not among `platforms:`"):
        read(context, platforms=("450k",))


def test_of_two_arrays_of_a_patient_the_larger_counts(gdc, context) -> None:
    gdc.betas(f"{A}-01A", SMALL)
    gdc.betas(f"{A}-01A", {**BIG, "cg00000001": 0.7})
    gdc.sheet()
    data = read(context)
    assert data[A, "cg00000001"].X.item() == pytest.approx(0.7)


def test_older_files_have_a_header_and_the_barcode_in_their_name(gdc, context) -> None:
    text = (
        "Composite Element REF\tBeta_value\tChromosome\tStart\n"
        "cg00000001\t0.25\tchr1\t1\ncg00000002\tNA\tchr1\t2\ncg00000004\t0.5\tchr1\t3\n"
    )
    name = f"jhu-usc.edu_GBM.HumanMethylation450.1.lvl-3.{A}-01C-01D-0182-05.gdc_hg38.txt"
    gdc.file("dnam", "", f"{A}-01A", text, name=name)  # no sample sheet is written
    data = read(context)
    assert list(data.obs_names) == [A]
    assert list(data.var_names) == ["cg00000001", "cg00000004"]
    assert data.obs["platform"].tolist() == ["450k"]


def test_epic_v2_replicates_are_averaged(gdc, context, audit) -> None:
    gdc.betas(f"{A}-01A", {"cg00000001_TC21": 0.2, "cg00000001_BC22": 0.4, "cg00000002_BC11": 0.6})
    gdc.betas(f"{B}-01A", {"cg00000001_TC21": "NA", "cg00000001_BC22": 0.4, "cg00000002_BC11": 0.6})
    gdc.sheet()
    data = read(context)
    np.testing.assert_allclose(data[:, ["cg00000001", "cg00000002"]].X, [[0.3, 0.6], [0.4, 0.6]])
    assert "averaged" in audit()


def test_damaged_files_are_named_and_skipped(gdc, context, audit) -> None:
    many = {f"cg{i:08d}": 0.5 for i in range(10)}
    gdc.betas(f"{A}-01A", many)
    gdc.betas(f"{B}-01A", dict(list(many.items())[:6]))  # the beginning of the other: cut short
    gdc.betas(f"{C}-01A", {**many, "cg00000003": 3.5})
    gdc.betas("TCGA-CS-0004-01A", dict.fromkeys(many, "NA"))
    gdc.sheet()
    assert list(read(context).obs_names) == [A]
    for reason in ("cut short", "1 values outside 0 and 1 are no betas", "no probe has values"):
        assert reason in audit()


def test_probes_masked_in_all_files_are_left_out(gdc, context, audit) -> None:
    gdc.betas(f"{A}-01A", {"cg00000001": 0.1, "cg00000002": "NA"})
    gdc.betas(f"{B}-01A", {"cg00000001": 0.1, "cg00000002": "NA"})
    gdc.sheet()
    assert list(read(context).var_names) == ["cg00000001"]
    assert "1 features have no value in any patient (cg00000002" in audit()


def test_idat_files_are_another_thing(gdc, context, audit, tmp_path) -> None:
    gdc.betas(f"{A}-01A", SMALL)
    (tmp_path / "dnam" / "x").mkdir()
    (tmp_path / "dnam" / "x" / "1_Grn.idat").write_bytes(b"")
    gdc.sheet()
    read(context)
    assert "1_Grn.idat" in audit()


def test_no_shared_probe_is_an_error(gdc, context) -> None:
    gdc.betas(f"{A}-01A", SMALL)
    gdc.betas(f"{B}-01A", {"cg00000009": 0.5})
    gdc.sheet()
    with pytest.raises(DataError, match="the platforms share no probe"):
        read(context, probes="shared")
