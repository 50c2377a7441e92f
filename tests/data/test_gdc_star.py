"""STAR gene counts as they lie on disk after gdc-client."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from omnisurv.data.readers import ReadContext, read_gdc_star
from omnisurv.data.sources import StarSource
from omnisurv.errors import DataError

A, B, C = "TCGA-02-0001", "TCGA-02-0002", "TCGA-06-0003"
PRIMARY = {"tissue_type": "Tumor", "tumor_descriptor": "Primary"}


def source(**keys: object) -> StarSource:
    return StarSource(format="gdc-star", path="rna", **keys)


def read(context: ReadContext, value: str = "tpm", **keys: object):
    return read_gdc_star(source(**keys), context, value=value)  # type: ignore[arg-type]


def test_genes_are_read_by_name_and_told_apart(gdc, context, audit) -> None:
    gdc.star(f"{A}-01A", 1.0, **PRIMARY)
    gdc.star(f"{B}-01A", 2.0, **PRIMARY)
    gdc.sheet()
    data = read(context)
    assert list(data.obs_names) == [A, B]
    # No N_ rows, no lncRNA, no PAR_Y copy; versions stripped but kept beside.
    assert list(data.var_names) == ["ENSG00000000003", "ENSG00000000005", "ENSG00000002586"]
    assert next(iter(data.var["id"])) == "ENSG00000000003.15"
    assert list(data.var["symbol"]) == ["TSPAN6", "TNMD", "CD99"]
    assert data.X.dtype == np.float32
    np.testing.assert_allclose(data.X, [[1, 2, 4], [2, 4, 8]])
    assert data.uns["scale"] == "linear"
    assert data.obs["sample"].tolist() == [f"{A}-01A", f"{B}-01A"]
    assert "1 _PAR_Y genes" in audit()


@pytest.mark.parametrize(
    ("value", "first", "scale"),
    [
        ("counts", 100, "counts"),
        ("tpm", 1, "linear"),
        ("fpkm", 0.5, "linear"),
        ("fpkm_uq", 0.25, "linear"),
    ],
)
def test_each_value_has_its_column(gdc, context, value, first, scale) -> None:
    gdc.star(f"{A}-01A", **PRIMARY)
    gdc.sheet()
    data = read(context, value)
    assert data.X[0, 0] == first
    assert data.uns["scale"] == scale


def test_all_genes_can_be_had(gdc, context) -> None:
    gdc.star(f"{A}-01A", **PRIMARY)
    gdc.sheet()
    assert "ENSG00000223972" in read(context, genes="all").var_names


def test_sample_type_goes_before_duplicates(gdc, context, audit) -> None:
    """Files come in any order: the first of a patient may be recurrent, or normal."""
    gdc.star(f"{A}-02A", 7.0, tissue_type="Tumor", tumor_descriptor="Recurrence")
    gdc.star(f"{A}-11A", 8.0, tissue_type="Normal", tumor_descriptor="Not Applicable")
    gdc.star(f"{A}-01A", 1.0, **PRIMARY)
    gdc.star(f"{B}-02A", 9.0, tissue_type="Tumor", tumor_descriptor="Recurrence")
    gdc.sheet()
    data = read(context)
    assert list(data.obs_names) == [A]
    assert data.X[0, 0] == 1.0
    assert "sample type 02 (recurrent tumour) is not 01 (primary tumour)" in audit()
    assert "11 (solid tissue normal)" in audit()


def test_ffpe_is_the_last_resort(gdc, context, audit) -> None:
    gdc.star(f"{A}-01B", 5.0, **PRIMARY, preservation_method="FFPE")
    gdc.star(f"{A}-01A", 1.0, **PRIMARY, preservation_method="OCT")
    gdc.star(f"{B}-01A", 2.0, **PRIMARY, preservation_method="FFPE")
    gdc.sheet()
    data = read(context)
    assert data.X[:, 0].tolist() == [1.0, 2.0]
    assert f"duplicate of {A}-01A: FFPE" in audit()
    assert "FFPE, but the patient has no other sample" in audit()


def test_old_sample_sheets_say_sample_type(gdc, context) -> None:
    gdc.star(f"{A}-01A", sample_type="Primary Tumor")
    gdc.star(f"{B}-02A", sample_type="Recurrent Tumor")
    gdc.sheet(new=False)
    assert list(read(context).obs_names) == [A]


def test_blood_cancer_and_melanoma_have_their_own_primary_set(gdc, context) -> None:
    from dataclasses import replace

    import pandas as pd

    gdc.star("TCGA-AB-0001-03A", sample_type="Primary Blood Derived Cancer - Peripheral Blood")
    gdc.star("TCGA-EB-0002-06A", sample_type="Metastatic")
    gdc.star("TCGA-02-0003-06A", sample_type="Metastatic")
    gdc.sheet(new=False)
    project = pd.Series({"TCGA-AB-0001": "LAML", "TCGA-EB-0002": "SKCM", "TCGA-02-0003": "GBM"})
    data = read(replace(context, project=project))
    assert list(data.obs_names) == ["TCGA-AB-0001", "TCGA-EB-0002"]


def test_projects_are_known_from_the_sheet_too(gdc, context) -> None:
    gdc.star("TCGA-AB-0001-03A", project="TCGA-LAML", sample_type="x")
    gdc.sheet(new=False)
    assert list(read(context).obs_names) == ["TCGA-AB-0001"]


def test_aliquots_of_the_metadata_choose_between_duplicates(gdc, context) -> None:
    low, high = gdc.star(f"{A}-01A", 1.0, **PRIMARY), gdc.star(f"{A}-01A", 2.0, **PRIMARY)
    gdc.metadata({low: f"{A}-01A-01R-1111-07", high: f"{A}-01A-01R-2222-07"})
    gdc.sheet()
    data = read(context)
    assert data.X[0, 0] == 2.0
    assert data.obs["sample"].tolist() == [f"{A}-01A-01R-2222-07"]


def test_metadata_alone_will_do(gdc, context) -> None:
    path = gdc.star(f"{A}-01A")
    gdc.metadata({path: f"{A}-01A-01R-1111-07"})
    assert list(read(context).obs_names) == [A]


def test_a_cell_may_name_several_samples(gdc, context) -> None:
    gdc.star(f"{A}-10A, {A}-01A", 3.0)
    gdc.star(f"{B}-01A, {C}-01A", 4.0)
    gdc.sheet()
    data = read(context)
    assert list(data.obs_names) == [A]
    assert data.obs["sample"].tolist() == [f"{A}-01A"]


def test_damaged_files_are_named_and_skipped(gdc, context, audit) -> None:
    gdc.star(f"{A}-01A", **PRIMARY)
    empty = gdc.star(f"{B}-01A", **PRIMARY)
    empty.write_text("")
    cut_in_line = gdc.star("TCGA-02-0010-01A", **PRIMARY)
    cut_in_line.write_text(cut_in_line.read_text()[:-30])
    at_line_end = gdc.star("TCGA-02-0011-01A", **PRIMARY)
    at_line_end.write_text("".join(at_line_end.read_text().splitlines(True)[:-2]))
    binary = gdc.star("TCGA-02-0012-01A", **PRIMARY)
    binary.write_bytes(b"\x1f\x8b\x00\xff" * 50)
    gdc.sheet()
    data = read(context)
    assert list(data.obs_names) == [A]
    for path in (empty, cut_in_line, at_line_end, binary):
        assert f"{path.name} " in audit()
    assert "damaged file: empty file" in audit()
    assert "damaged file: cut short" in audit()
    assert "4 files could not be used" in audit()


def test_the_next_duplicate_stands_in_for_a_damaged_file(gdc, context) -> None:
    good, bad = gdc.star(f"{A}-01A", 1.0, **PRIMARY), gdc.star(f"{A}-01A", 2.0, **PRIMARY)
    gdc.star(f"{B}-01A", 3.0, **PRIMARY)
    bad.write_text("".join(bad.read_text().splitlines(True)[:-1]))
    gdc.metadata({good: f"{A}-01A-01R-1111-07", bad: f"{A}-01A-01R-2222-07"})
    gdc.sheet()
    assert read(context).X[:, 0].tolist() == [1.0, 3.0]


def test_a_file_shorter_than_the_manifest_says_is_skipped(gdc, context, audit, tmp_path) -> None:
    whole, short = gdc.star(f"{A}-01A", **PRIMARY), gdc.star(f"{B}-01A", **PRIMARY)
    lines = [
        f"{p.parent.name}\t{p.name}\tmd5\t{n}\treleased"
        for p, n in ((whole, whole.stat().st_size), (short, 10**6))
    ]
    (tmp_path / "rna" / "gdc_manifest.txt").write_text("\n".join(lines) + "\n")  # no header
    gdc.sheet()
    assert list(read(context).obs_names) == [A]
    assert "the manifest says 1000000" in audit()


def test_what_else_lies_about_is_told_apart(gdc, context, audit, tmp_path) -> None:
    first = gdc.star(f"{A}-01A", **PRIMARY)
    (first.parent / "annotations.txt").write_text("id\tnotes\nx\tGeneral note\n")
    redacted = gdc.star(f"{B}-01A", **PRIMARY)
    (redacted.parent / "annotations.txt").write_text("id\tcategory\nx\tItem flagged DNU\n")
    partial = gdc.star(f"{C}-01A", **PRIMARY)
    partial.rename(partial.with_name(partial.name + ".partial"))
    old = tmp_path / "rna" / "u" / "x.htseq.counts.gz"
    old.parent.mkdir()
    old.write_bytes(b"x")
    stray = tmp_path / "rna" / "v" / f"stray.{first.name.split('.', 1)[1]}"
    stray.parent.mkdir()
    stray.write_text(first.read_text())
    gdc.sheet()
    assert list(read(context).obs_names) == [A]
    said = audit()
    assert "its annotations.txt says 'DNU'" in said
    assert "has an annotations.txt" in said
    assert "interrupted download" in said
    assert "of another workflow" in said
    assert "in no sample sheet" in said
    assert "1 files of the sample sheet were not downloaded" in said  # the partial one


def test_gene_lists_of_two_releases_are_matched_by_plain_id(gdc, context, audit) -> None:
    gdc.star(f"{A}-01A", **PRIMARY)
    other = gdc.star(f"{B}-01A", **PRIMARY)
    other.write_text(other.read_text().replace("ENSG00000000005.6", "ENSG00000000005.4"))
    gdc.sheet()
    data = read(context)
    assert list(data.var_names) == ["ENSG00000000003", "ENSG00000000005", "ENSG00000002586"]
    assert np.isfinite(data.X).all()
    assert "2 lists of genes" in audit()


def test_gzipped_files_are_read(gdc, context) -> None:
    path = gdc.star(f"{A}-01A", **PRIMARY)
    with gzip.open(f"{path}.gz", "wt") as packed:
        packed.write(path.read_text())
    path.unlink()
    gdc.sheet()
    assert list(read(context).obs_names) == [A]


def test_no_sample_sheet_is_an_error_that_says_where_to_get_one(gdc, context) -> None:
    gdc.star(f"{A}-01A")
    with pytest.raises(DataError, match=r"in a sample sheet; download it from the GDC cart"):
        read(context)


def test_no_file_is_an_error(gdc, context, tmp_path) -> None:
    (tmp_path / "rna").mkdir()
    with pytest.raises(DataError, match="has no file named like"):
        read(context)


def test_not_one_readable_file_is_an_error_that_names_the_first(gdc, context) -> None:
    gdc.star(f"{A}-01A", **PRIMARY).write_text("")
    gdc.sheet()
    with pytest.raises(DataError, match=r"none of the 1 files could be read.*empty file"):
        read(context)


def test_only_unwanted_types_is_an_error_that_says_how_to_take_them(gdc, context) -> None:
    gdc.star(f"{A}-02A", tissue_type="Tumor", tumor_descriptor="Recurrence")
    gdc.sheet()
    with pytest.raises(
        DataError, match=r"found 1 × 02 \(recurrent tumour\).*sample_types: \['02'\]"
    ):
        read(context)
    assert list(read(context, sample_types=("02",)).obs_names) == [A]


def test_a_strange_sample_sheet_is_named(gdc, context, tmp_path) -> None:
    gdc.star(f"{A}-01A")
    (tmp_path / "sheet.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match="is no GDC sample sheet: it has no column 'File Id'"):
        read(context, sample_sheet="sheet.tsv")


def test_strange_metadata_is_named(gdc, context, tmp_path) -> None:
    gdc.star(f"{A}-01A")
    (tmp_path / "metadata.json").write_text(json.dumps({"a": 1})[:-1])
    with pytest.raises(DataError, match="is no GDC metadata"):
        read(context)


def test_other_programmes_use_words_of_the_sheet(tmp_path, gdc) -> None:
    from omnisurv.data.spec import PatientRule

    gdc.star("C3L-00001-01", **PRIMARY)
    gdc.star("C3L-00002-06", tissue_type="Normal", tumor_descriptor="Not Applicable")
    for row in gdc.rows:
        row["Case ID"] = row["Sample ID"][:9]
    gdc.sheet()
    context = ReadContext(Path(tmp_path), PatientRule(id="column"))
    assert list(read(context).obs_names) == ["C3L-00001"]
