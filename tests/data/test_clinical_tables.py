"""Clinical tables as GDC, biotab, cBioPortal, Xena and spreadsheets write them."""

from typing import NamedTuple

import numpy as np
import pytest

from omnisurv.data.readers import read_table
from omnisurv.data.sources import TableSource
from omnisurv.errors import DataError

A, B, C = "TCGA-02-0001", "TCGA-02-0002", "TCGA-06-0003"


class Rule(NamedTuple):
    type: str
    levels: tuple[str, ...] | None = None


def read(path: str, context, columns=None, **keys):
    rules = columns and {n: r if isinstance(r, Rule) else Rule(r) for n, r in columns.items()}
    return read_table(TableSource(format="table", path=path, **keys), context, rules)


def test_declared_types(write, context) -> None:
    write(
        "c.tsv",
        f"patient|age|sex|grade|race\n{A}|50|male|G3|white\n{B}|61.5|female|G2|asian\n"
        f"{C}|'--|male|not reported|[Not Available]",
    )
    data = read(
        "c.tsv",
        context,
        {
            "age": "continuous",
            "sex": "binary",
            "grade": Rule("ordinal", ("G2", "G3", "G4")),
            "race": "categorical",
        },
    )
    assert list(data.var_names) == ["age", "sex", "grade", "race=asian", "race=white"]
    assert list(data.var["type"]) == ["continuous", "binary", "ordinal", "binary", "binary"]
    assert list(data.var["feature"]) == ["age", "sex", "grade", "race", "race"]
    np.testing.assert_array_equal(
        data.X, np.float32([[50, 1, 1, 0, 1], [61.5, 0, 0, 1, 0], [np.nan, 1, *[np.nan] * 3]])
    )
    assert data.uns["levels"] == {
        "sex": ["female", "male"],
        "grade": ["G2", "G3", "G4"],
        "race": ["asian", "white"],
    }


@pytest.mark.parametrize(
    "token",
    [
        "'--",
        "--",
        "not reported",
        "Not Reported",
        "unknown",
        "[Not Available]",
        "[Not Applicable]",
        "[Discrepancy]",
        "NA",
        "#N/A",
        "",
        "NaN",
    ],
)
def test_every_way_to_say_missing(write, context, token) -> None:
    write("c.tsv", f"patient|age|sex\n{A}|{token}|male\n{B}|5|female")
    assert np.isnan(read("c.tsv", context, {"age": "continuous"}).X).sum() == 0
    data = read("c.tsv", context, {"age": "continuous", "sex": "binary"})
    assert np.isnan(data[A, "age"].X.item())


def test_a_patient_without_any_value_does_not_have_the_modality(write, context) -> None:
    write("c.tsv", f"patient|age\n{A}|NA\n{B}|5")
    assert list(read("c.tsv", context, {"age": "continuous"}).obs_names) == [B]


def test_biotab_has_two_more_header_rows(write, context) -> None:
    write(
        "c.txt",
        "bcr_patient_uuid|bcr_patient_barcode|gender\n"
        "bcr_patient_uuid|bcr_patient_barcode|gender\nCDE_ID:|CDE_ID:2003301|CDE_ID:22\n"
        f"u1|{A}|MALE\nu2|{B}|FEMALE",
    )
    assert list(read("c.txt", context, {"gender": "binary"}).obs_names) == [A, B]


def test_cbioportal_has_four_comment_lines(write, context) -> None:
    write(
        "c.txt",
        f"#Patient Identifier|Age\n#x|y\n#STRING|NUMBER\n#1|1\nPATIENT_ID|AGE\n{A}|50\n{B}|60",
    )
    assert read("c.txt", context, {"AGE": "continuous"}).X.ravel().tolist() == [50, 60]


def test_one_row_per_treatment(write, context, audit) -> None:
    write(
        "c.tsv",
        "case_id|case_submitter_id|gender|treatment_or_therapy\n"
        f"u1|{A}|male|no\nu1|{A}|male|yes\nu2|{B}|female|no\nu2|{B}|female|no",
    )
    data = read("c.tsv", context, {"gender": "binary", "treatment_or_therapy": "binary"})
    assert data.X.tolist() == [[1, 1], [0, 0]]
    assert "immortal-time bias" in audit()


def test_several_diagnoses_take_the_primary_one(write, context, audit) -> None:
    write(
        "c.tsv",
        "cases.submitter_id|diagnoses.classification_of_tumor|diagnoses.age_at_diagnosis"
        f"|diagnoses.tumor_grade\n{A}|metastasis|25000|G4\n{A}|primary|21915|G2\n"
        f"{B}|primary|18262.5|G3",
    )
    data = read("c.tsv", context, {"age_at_diagnosis": "continuous", "tumor_grade": "ordinal"})
    # GDC writes this age in days, and with a prefix.
    assert data.X.tolist() == [[60, 0], [50, 1]]
    assert "read as years" in audit()
    assert "1 of 2 rows are of another diagnosis" in audit()


def test_several_diagnoses_else_take_the_earliest(write, context) -> None:
    write("c.tsv", f"patient|days_to_diagnosis|stage\n{A}|300|II\n{A}|0|I\n{B}|0|II")
    data = read("c.tsv", context, {"stage": Rule("ordinal", ("I", "II"))})
    assert data.X.ravel().tolist() == [0, 1]


def test_contradicting_rows_are_named(write, context) -> None:
    write("c.tsv", f"patient|grade\n{A}|G2\n{A}|G3\n{B}|G2")
    with pytest.raises(DataError, match=f"'grade' has several values for {A}: G2, G3; keep one"):
        read("c.tsv", context, {"grade": "categorical"})


@pytest.mark.parametrize(
    "column",
    [
        "radiation_therapy",
        "pharmaceutical_therapy",
        "treatments_radiation_treatment_or_therapy",
        "drug_name",
    ],
)
def test_what_comes_after_baseline_is_a_warning(write, context, audit, column) -> None:
    write("c.tsv", f"patient|{column}\n{A}|yes\n{B}|no")
    read("c.tsv", context, {column: "binary"})
    assert "immortal-time bias" in audit()


def test_prior_treatment_is_baseline(write, context, audit) -> None:
    write("c.tsv", f"patient|prior_treatment\n{A}|Yes\n{B}|No")
    read("c.tsv", context, {"prior_treatment": "binary"})
    assert "immortal" not in audit()


def test_without_declared_columns_what_looks_usable_is_taken(write, context, audit) -> None:
    write(
        "c.tsv",
        f"patient|age|OS.time|vital_status|note|const|sex\n{A}|5|1|Dead|x|1|m\n"
        f"{B}|6|2|Alive|y|1|f\n{C}|7|3|Alive|y|1|f",
    )
    data = read("c.tsv", context)
    assert list(data.var_names) == ["age", "note", "sex"]
    assert "OS.time, vital_status, const" in audit()


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"agee": "continuous"}, r"c\.tsv has no column 'agee'\. Did you mean 'age'\?"),
        ({"grade": "continuous"}, "column 'grade' has 'G2' for TCGA-02-0001 where a number"),
        ({"grade": "binary"}, "declared binary and has 3 values"),
        ({"race": "ordinal"}, "the order of asian, black, white is not known"),
        (
            {"grade": Rule("ordinal", ("low", "high"))},
            r"none of its levels \['low', 'high'\], but G2",
        ),
        ({"empty": "continuous"}, "column 'empty' has no value for any patient"),
    ],
)
def test_what_does_not_fit_is_said(write, context, columns, sentence) -> None:
    write(
        "c.tsv",
        f"patient|age|grade|race|empty\n{A}|5|G2|white|NA\n{B}|6|G3|asian|NA\n{C}|6|G4|black|NA",
    )
    with pytest.raises(DataError, match=sentence):
        read("c.tsv", context, columns)


def test_a_value_that_is_no_level_is_missing_and_said(write, context, audit) -> None:
    write("c.tsv", f"patient|res\n{A}|r0\n{B}|RX\n{C}|R2")
    data = read("c.tsv", context, {"res": Rule("ordinal", ("r0", "r1", "r2"))})
    assert list(data.obs_names) == [A, C]
    assert "RX is none of its levels, missing for 1 patients" in audit()


def test_binary_codes_mean_the_same_in_every_cohort(write, context) -> None:
    write("c.tsv", f"patient|flag|IDH\n{A}|yes|Mutant\n{B}|yes|WT")
    assert read("c.tsv", context, {"flag": "binary", "IDH": "binary"}).X.tolist() == [
        [1, 1],
        [1, 0],
    ]


def test_whole_numbers_with_gaps(write, context) -> None:
    write("c.tsv", f"patient|x\n{A}|1.0\n{B}|0\n{C}|NA")
    assert read("c.tsv", context, {"x": "binary"}).X.ravel().tolist() == [1, 0]


def test_ids_that_are_none_are_refused(write, context) -> None:
    write("c.tsv", "name|age\nP1|4\nP2|5")
    with pytest.raises(
        DataError, match=r"has no column of ids of the kind 'patients: \{id: tcga\}'"
    ):
        read("c.tsv", context)
    with pytest.raises(DataError, match="column 'name' holds no ids of the kind"):
        read("c.tsv", context, id="name")


def test_excel_without_a_reader_is_a_clear_line(tmp_path, context, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "cdr.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"cdr\.xlsx is an Excel file: save it as TSV, or `pip"):
        read("cdr.xlsx", context)


def test_duplicate_columns_are_refused(write, context) -> None:
    write("c.csv", f"patient,age,age\n{A},1,2")
    # pandas renames the second; what remains is told apart.
    assert list(read("c.csv", context, {"age": "continuous"}).var_names) == ["age"]
