"""Wide tables: what is sniffed, what is refused, and what the keys of the spec override."""

import gzip

import anndata
import numpy as np
import pandas as pd
import pytest

from omnisurv.data.readers import read_matrix
from omnisurv.data.sources import MatrixSource
from omnisurv.errors import DataError

A, B, C = "TCGA-02-0001", "TCGA-02-0002", "TCGA-06-0003"


def source(path: str, **keys: object) -> MatrixSource:
    return MatrixSource(format="matrix", path=path, **keys)


def table(path: str, context, kind: str = "table", type=None, **keys):
    return read_matrix(source(path, **keys), context, kind, type)


# ---------------------------------------------------------------- orientation and file types


def test_patients_by_features(write, context, audit) -> None:
    write("m.tsv", f"patient|EGFR|TP53\n{B}|3|NA\n{A}|1|2.5")
    data = table("m.tsv", context)
    assert list(data.obs_names) == [A, B]
    np.testing.assert_array_equal(data.X, np.float32([[1, 2.5], [3, np.nan]]))
    assert data.X.dtype == np.float32
    assert data.var.loc["TP53", "feature"] == "TP53"
    assert data.uns["scale"] == "table"
    assert "read as samples × features, symbol ids" in audit()


def test_features_by_samples(write, context, audit) -> None:
    write("m.tsv", f"gene|{B}-01A|{A}-01A\nEGFR|3|1\nTP53|4|2")
    data = table("m.tsv", context)
    assert list(data.obs_names) == [A, B]
    np.testing.assert_array_equal(data.X, [[1, 2], [3, 4]])
    assert data.obs["sample"].tolist() == [f"{A}-01A", f"{B}-01A"]
    assert "read as features × samples" in audit()


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "parquet", "h5ad"])
def test_all_formats_say_the_same(tmp_path, context, ending) -> None:
    frame = pd.DataFrame({"EGFR": [1.0, 3.0], "TP53": [2.5, np.nan]}, index=[A, B])
    path = tmp_path / f"m.{ending}"
    if ending == "parquet":
        frame.to_parquet(path)
    elif ending == "h5ad":
        anndata.AnnData(frame.to_numpy(np.float32), frame[[]], frame.T[[]]).write_h5ad(path)
    else:
        frame.to_csv(path, sep="\t" if ending == "tsv" else ",", index_label="patient")
    data = table(path.name, context)
    np.testing.assert_array_equal(data.X, frame.to_numpy(np.float32))
    assert list(data.var_names) == ["EGFR", "TP53"]


def test_r_leaves_out_the_name_of_the_row_names(write, context) -> None:
    write("m.tsv", f"EGFR|TP53\n{A}|1|2\n{B}|3|4")
    assert list(table("m.tsv", context).var_names) == ["EGFR", "TP53"]


def test_semicolons_and_a_byte_order_mark(tmp_path, context) -> None:
    (tmp_path / "m.csv").write_bytes(f"﻿patient;EGFR\n{A};1\n{B};2\n".encode())
    assert table("m.csv", context).X.ravel().tolist() == [1, 2]


def test_own_ids_are_told_by_the_endpoint_table(write, plain_context) -> None:
    write("m.csv", "id,P1,P2\nEGFR,1,2\nTP53,3,4")
    context = plain_context("P1", "P2", "P3")
    assert list(table("m.csv", context).var_names) == ["EGFR", "TP53"]


def test_genes_tell_the_orientation_where_ids_cannot(write, plain_context) -> None:
    write("m.csv", "id,ENSG00000000003,ENSG00000000005\nP1,1,2\nP2,3,4")
    assert list(table("m.csv", plain_context()).obs_names) == ["P1", "P2"]


def test_ambiguous_orientation_is_refused_and_can_be_said(write, plain_context) -> None:
    write("m.csv", "id,P1,P2\nQ1,1,2\nQ2,3,4")
    context = plain_context()
    with pytest.raises(
        DataError,
        match=r"m\.csv: the orientation is ambiguous, neither of rows "
        r"\(Q1, Q2\) and columns \(P1, P2\).*say `orientation:",
    ):
        table("m.csv", context)
    data = table("m.csv", context, orientation="samples_x_features")
    assert list(data.obs_names) == ["Q1", "Q2"]
    data = table("m.csv", context, orientation="features_x_samples")
    assert list(data.obs_names) == ["P1", "P2"]


def test_patients_on_both_sides_are_ambiguous(write, context) -> None:
    write("m.tsv", f"patient|{A}|{B}\n{A}|1|0\n{B}|0|1")
    with pytest.raises(DataError, match="ambiguous, both of rows"):
        table("m.tsv", context)


def test_other_columns_are_left_out_and_said(write, context, audit) -> None:
    write("m.tsv", f"patient|EGFR|tissue|OS.time|OS\n{A}|1|brain|10|1\n{B}|2|liver|20|0")
    assert list(table("m.tsv", context).var_names) == ["EGFR"]
    assert "columns of texts are no values, left out: tissue" in audit()
    assert "columns that tell the outcome are no inputs, left out: OS.time, OS" in audit()


def test_gistic_and_other_annotation_columns_are_no_samples(write, context, audit) -> None:
    write("m.tsv", f"Gene Symbol|Locus ID|Cytoband|{A}-01|{B}-01|{C}-01\nEGFR|1956|7p11|2|0|1")
    data = table("m.tsv", context)
    assert list(data.obs_names) == [A, B, C]
    assert "1 names are no 'tcga' ids: Locus ID" in audit()


def test_firehose_tables_have_two_header_rows(write, context) -> None:
    write(
        "m.txt",
        f"Hybridization REF|{A}-01A-11R-1111-07|{B}-01A-11R-1111-07\n"
        "gene_id|normalized_count|normalized_count\nEGFR|1956|100.5\nTP53|7|80",
    )
    data = table("m.txt", context, "rna")
    assert data.X.tolist() == [[1956, 7], [100.5, 80]]


# ---------------------------------------------------------------- samples


def test_sample_types_then_duplicates(write, context, audit) -> None:
    names = (
        f"{A}-02A-11R-1111-07|{A}-01A-11R-1111-07|{A}-01A-11R-2222-07|{B}-11A-11R-1111-07|{C}-01"
    )
    write("m.tsv", f"gene|{names}\nEGFR|9|1|2|8|3")
    data = table("m.tsv", context, "rna", scale="log2")
    assert data.X.ravel().tolist() == [2, 3]
    assert "sample type 11 (solid tissue normal) is not 01" in audit()
    assert f"duplicate of {A}-01A-11R-2222-07: lower in the order" in audit()


def test_a_patient_twice_with_different_values_is_an_error(write, context) -> None:
    write("m.tsv", f"patient|EGFR\n{A}|1\n{B}|5\n{A}|2")
    with pytest.raises(DataError, match=f"patient {A} stands there more than once with different"):
        table("m.tsv", context)


def test_a_patient_twice_with_the_same_values_is_noted(write, context, audit) -> None:
    write("m.tsv", f"patient|EGFR\n{A}|1\n{B}|5\n{A}|1")
    assert len(table("m.tsv", context)) == 2
    assert f"duplicate of {A}" in audit()


def test_only_normal_samples_is_an_error(write, context) -> None:
    write("m.tsv", f"gene|{A}-11A|{B}-11A\nEGFR|1|2")
    with pytest.raises(DataError, match=r"found 2 × 11 .*sample_types: \['11'\]"):
        table("m.tsv", context)
    assert len(table("m.tsv", context, sample_types=("11",))) == 2


# ---------------------------------------------------------------- feature ids


def test_xena_gdc_hub(write, context) -> None:
    write(
        "TCGA-GBM.star_tpm.tsv",
        f"Ensembl_ID|{A}-01A|{B}-01A\nENSG00000000003.15|3.1|5.2\n"
        "ENSG00000002586.20|1.5|2\nENSG00000002586.20_PAR_Y|0|0",
    )
    data = table("TCGA-GBM.star_tpm.tsv", context, "rna")
    assert list(data.var_names) == ["ENSG00000000003", "ENSG00000002586"]
    assert data.uns["scale"] == "log2"


def test_cbioportal_blank_and_duplicate_symbols(write, context, audit) -> None:
    write(
        "data_mrna_seq_v2_rsem.txt",
        f"Hugo_Symbol|Entrez_Gene_Id|{A}-01|{B}-01|{C}-01\nEGFR|1956|120|3|NA\n"
        "|100130426|1|2|3\nTP53|7157|10|20|30\nTP53|7157|30|40|50\n||7|8|9",
    )
    data = table("data_mrna_seq_v2_rsem.txt", context, "rna", scale="linear")
    assert list(data.var_names) == ["EGFR", "?|100130426", "TP53"]
    assert data[B, "TP53"].X.item() == 30
    assert np.isnan(data[C, "EGFR"].X.item())
    assert "1 features without a name" in audit()
    assert "1 features that stand more than once" in audit()


def test_cbioportal_merged_methylation(write, context) -> None:
    write(
        "data_methylation_hm27_hm450_merged.txt",
        f"ENTITY_STABLE_ID|NAME|DESCRIPTION|TRANSCRIPT_ID|{A}-01|{B}-01\n"
        "cg00000292|ATP2A1|TSS|NM_1|0.7|NA\ncg00002426|SLMAP|Body|NM_2|0.1|0.2",
    )
    data = table("data_methylation_hm27_hm450_merged.txt", context, "dnam")
    assert list(data.var_names) == ["cg00000292", "cg00002426"]
    assert data.uns["scale"] == "beta"


def test_symbol_and_entrez(write, context) -> None:
    write(
        "m.csv",
        f"gene_id,{A}-01A,{B}-01A\nA1BG|1,151.68,3\n?|100,2,2\nX|5,1,1\nX|6,3,3\nA1BG|1,151.68,5".replace(
            "|", "¦"
        ),
    )
    path = context.root / "m.csv"
    path.write_text(path.read_text().replace("¦", "|"))
    data = table("m.csv", context, "rna")
    # X is two genes: they keep their number; A1BG stands twice and is averaged.
    assert list(data.var_names) == ["A1BG", "?|100", "X|5", "X|6"]
    assert data.X[:, 0].tolist() == [pytest.approx(151.68), 4]


def test_mixed_feature_ids_are_refused(write, context) -> None:
    write("m.tsv", f"gene|{A}|{B}\nENSG00000000003|1|2\nEGFR|3|4\nENSG00000000005|1|2\nTP53|3|4")
    with pytest.raises(DataError, match=r"of several types \(2 ensembl, 2 symbol\).*`ids:"):
        table("m.tsv", context, "rna")
    assert table("m.tsv", context, "rna", ids="other").n_vars == 4


def test_row_numbers_are_no_feature_ids(write, context) -> None:
    write("m.tsv", f"|{A}|{B}\n0|1|2\n1|3|4\n2|3|4")
    with pytest.raises(DataError, match=r"the feature ids are row numbers \(0, 1, …\)"):
        table("m.tsv", context, "rna")


# ---------------------------------------------------------------- scale


def expression(tmp_path, values: np.ndarray) -> str:
    genes = [f"GENE{i}" for i in range(values.shape[1])]
    index = [f"TCGA-02-{i:04d}" for i in range(len(values))]
    pd.DataFrame(values, index, genes).to_csv(tmp_path / "m.csv", index_label="patient")
    return "m.csv"


@pytest.mark.parametrize(
    ("make", "scale"),
    [
        (lambda r: r.poisson(200, (20, 30)), "counts"),
        (lambda r: r.lognormal(4, 1, (20, 30)), "linear"),
        (lambda r: r.uniform(0, 14, (20, 30)), "log2"),
        (lambda r: r.normal(0, 1, (20, 30)), "z-score"),
        (
            lambda r: np.where(r.random((20, 30)) < 0.01, 3500, r.normal(-0.1, 1, (20, 30))),
            "z-score",
        ),
        (lambda r: r.uniform(-0.5, 14, (20, 30)), "log2"),  # EB++: batch-adjusted, some negative
        (lambda r: np.maximum(r.normal(-4, 6, (20, 30)), np.log2(0.001)), "log2"),  # Toil
    ],
)
def test_scale_of_expression(tmp_path, context, make, scale) -> None:
    path = expression(tmp_path, make(np.random.default_rng(0)))
    assert table(path, context, "rna").uns["scale"] == scale


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.linspace(0.5, 37.3, 60).reshape(20, 3), r"from 0.5 to 37.3 \(logs stay below 25"),
        (np.linspace(0, 0.9, 60).reshape(20, 3), "all are within 0 and 1"),
        (np.linspace(-3, 9.5, 60).reshape(20, 3), "are negative"),
    ],
)
def test_ambiguous_scales_are_refused_and_can_be_said(tmp_path, context, values, why) -> None:
    path = expression(tmp_path, values)
    with pytest.raises(DataError, match=f"the scale is ambiguous.*{why}"):
        table(path, context, "rna")
    assert table(path, context, "rna", scale="linear").uns["scale"] == "linear"


def test_z_scores_of_a_whole_cohort_are_a_warning(tmp_path, context, audit) -> None:
    table(expression(tmp_path, np.random.default_rng(0).normal(size=(20, 30))), context, "rna")
    assert "warning z-scores: their means and deviations" in audit()


@pytest.mark.parametrize(("row", "scale"), [("0.1|0.9", "beta"), ("-3.5|4.2", "m-value")])
def test_scale_of_methylation(write, context, row, scale) -> None:
    write("m.tsv", f"patient|cg00000001|cg00000002\n{A}|{row}\n{B}|{row}")
    assert table("m.tsv", context, "dnam").uns["scale"] == scale


def test_percentages_are_no_betas(write, context) -> None:
    write("m.tsv", f"patient|cg00000001|cg00000002\n{A}|10|93\n{B}|20|30")
    with pytest.raises(DataError, match=r"betas lie between 0 and 1.*`scale: beta\|m-value`"):
        table("m.tsv", context, "dnam")


def test_types_of_table_columns(write, context) -> None:
    write("m.tsv", f"patient|a|b|c\n{A}|0|-2|0.5\n{B}|1|2|7")
    assert list(table("m.tsv", context).var["type"]) == ["binary", "ordinal", "continuous"]
    assert set(table("m.tsv", context, type="continuous").var["type"]) == {"continuous"}


# ---------------------------------------------------------------- damage


def test_infinite_values_are_refused(write, context) -> None:
    write("m.tsv", f"patient|EGFR|TP53|IDH1\n{A}|inf|2|1\n{B}|3|-inf|1\n{C}|1|1|0")
    with pytest.raises(DataError, match=r"m.tsv: 2 infinite values in 2 of 3 features \(EGFR, TP"):
        table("m.tsv", context)


def test_infinite_values_of_a_sample_that_is_not_taken_do_not_matter(write, context) -> None:
    write("m.tsv", f"patient|EGFR\n{A}-11A|inf\n{A}-01A|3\n{B}-01A|4")
    assert table("m.tsv", context).X[:, 0].tolist() == [3, 4]


def test_columns_without_any_value_are_left_out(write, context, audit) -> None:
    write("m.tsv", f"patient|EGFR|TP53\n{A}|1|NA\n{B}|3|")
    assert list(table("m.tsv", context).var_names) == ["EGFR"]
    assert "1 features have no value in any patient (TP53" in audit()


def test_a_text_among_numbers_is_named(write, context) -> None:
    write("m.tsv", f"patient|EGFR\n{A}|1\n{B}|3\n{C}|oops")
    with pytest.raises(DataError, match="column 'EGFR' has oops among its numbers"):
        table("m.tsv", context)


def test_missing_files_offer_the_nearest_name(write, context) -> None:
    write("expression.tsv", f"patient|EGFR\n{A}|1")
    with pytest.raises(
        DataError, match=r"no file .*expresion\.tsv\. Did you mean 'expression\.tsv'"
    ):
        table("expresion.tsv", context)


@pytest.mark.parametrize("text", ["", "just one line", "a\n1\n"])
def test_what_is_no_table_is_refused(tmp_path, context, text) -> None:
    (tmp_path / "m.tsv").write_text(text)
    with pytest.raises(DataError, match=r"m\.tsv"):
        table("m.tsv", context)


def test_a_damaged_archive_is_refused(tmp_path, context) -> None:
    packed = gzip.compress(f"patient\tEGFR\n{A}\t1\n".encode() * 100)
    (tmp_path / "m.tsv.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match=r"m\.tsv\.gz cannot be read as a table"):
        table("m.tsv.gz", context)


def test_ids_of_another_kind_are_refused(write, context) -> None:
    write("m.tsv", "patient|EGFR\nP1|1\nP2|2")
    with pytest.raises(DataError, match=r"neither of rows \(P1, P2\)"):
        table("m.tsv", context)
    with pytest.raises(
        DataError, match=r"no id is of the kind 'patients: \{id: tcga\}' \(P1, P2\)"
    ):
        table("m.tsv", context, orientation="samples_x_features")


def test_duplicate_column_names_are_averaged(write, context) -> None:
    write("m.tsv", f"patient|EGFR|TP53|EGFR\n{A}|1|2|3\n{B}|3|4|5")
    assert table("m.tsv", context)[:, "EGFR"].X.ravel().tolist() == [2, 4]


def test_categories_need_another_format(write, context) -> None:
    write("m.tsv", f"patient|EGFR\n{A}|1\n{B}|3")
    with pytest.raises(DataError, match="categories need `format: table`"):
        table("m.tsv", context, type="categorical")


@pytest.mark.parametrize("last", ["5", "oops"])
def test_very_wide_tables_with_quoted_names_and_late_texts(tmp_path, context, last) -> None:
    names = ["patient", *(f'"G{i},x"' for i in range(600)), "site"]
    rows = [
        [p, *["1"] * 599, v, "brain"]
        for p, v in ((A, "1"), (B, last), (C, "2"), ("TCGA-02-9", "3"))
    ]
    (tmp_path / "m.csv").write_text("\n".join(",".join(r) for r in [names, *rows]) + "\n")
    if last == "oops":
        with pytest.raises(DataError, match="column 'G599,x' has oops among its numbers"):
            table("m.csv", context)
    else:
        data = table("m.csv", context)
        assert data.shape == (3, 600)
        assert data.X[1, 599] == 5
