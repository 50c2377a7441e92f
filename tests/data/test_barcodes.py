"""Samples that stand for a patient: type first, then the documented order of duplicates."""

import pytest

from omnisurv.data.barcodes import Sample, parse_barcode, primary_types, rank_samples


def sample(name: str, ffpe: bool | None = None, size: int = 0) -> Sample:
    barcode = parse_barcode(name)
    assert barcode is not None
    return Sample(name, barcode, barcode.type, ffpe, size)


def best(*names: str, analyte: str = "rna", types: tuple[str, ...] = ("01",)) -> str:
    return rank_samples([sample(n) for n in names], types, analyte)[0].name  # type: ignore[arg-type]


def test_an_aliquot_has_all_parts() -> None:
    barcode = parse_barcode("TCGA-02-0001-01C-01D-0182-01")
    assert barcode is not None
    parts = barcode.patient, barcode.type, barcode.vial, barcode.portion, barcode.analyte
    assert parts == ("TCGA-02-0001", "01", "C", "01", "D")
    assert (barcode.plate, barcode.hospital) == ("0182", "02")


@pytest.mark.parametrize(
    ("text", "patient", "type"),
    [
        ("TCGA-02-0001", "TCGA-02-0001", ""),
        ("TCGA-02-0001-01", "TCGA-02-0001", "01"),
        ("TCGA-02-0001-11A", "TCGA-02-0001", "11"),
        ("tcga.02.0001.01A", "TCGA-02-0001", "01"),
    ],
)
def test_shorter_names_say_less(text: str, patient: str, type: str) -> None:
    barcode = parse_barcode(text)
    assert barcode is not None
    assert (barcode.patient, barcode.type) == (patient, type)


@pytest.mark.parametrize("text", ["TSPAN6", "TCGA-02", "TCGA-02-00015", "", None])
def test_other_names_are_no_barcodes(text: object) -> None:
    assert parse_barcode(text) is None


def test_primary_is_a_set_per_project() -> None:
    assert primary_types("TCGA-GBM") == ("01",)
    assert primary_types("LAML") == ("03",)
    assert primary_types("TCGA-SKCM") == ("01", "06")
    assert primary_types(None) == ("01",)


def test_rna_prefers_analyte_h_then_r_then_t() -> None:
    t, r, h = (
        f"TCGA-02-0001-01A-01{a}-{p}-07" for a, p in (("T", "9999"), ("R", "5" * 4), ("H", "1" * 4))
    )
    assert best(t, r, h) == h
    assert best(t, r) == r


def test_dna_prefers_analyte_d_unless_another_is_of_a_later_plate() -> None:
    d = "TCGA-02-0001-01A-01D-0182-01"
    assert best(d, "TCGA-02-0001-01A-01W-0100-01", analyte="dna") == d
    later = "TCGA-02-0001-01A-01W-0500-01"
    assert best(d, later, analyte="dna") == later


def test_then_the_higher_portion_and_plate_count() -> None:
    assert best("TCGA-02-0001-01A-01R-9999-07", "TCGA-02-0001-01A-11R-0001-07").endswith("0001-07")
    assert best("TCGA-02-0001-01A-01R-1111-07", "TCGA-02-0001-01A-01R-2222-07").endswith("2222-07")


def test_ffpe_comes_last_whatever_its_analyte() -> None:
    ffpe = sample("TCGA-02-0001-01A-01H-9999-07", ffpe=True)
    frozen = sample("TCGA-02-0001-01A-01T-0001-07", ffpe=False)
    assert rank_samples([ffpe, frozen], ("01",), "rna") == [frozen, ffpe]


def test_vial_b_is_a_hint_only_where_preservation_is_unknown() -> None:
    assert best("TCGA-02-0001-01B", "TCGA-02-0001-01A") == "TCGA-02-0001-01A"
    a = sample("TCGA-02-0001-01A-01R-1111-07", ffpe=False)
    b = sample("TCGA-02-0001-01B-01R-2222-07", ffpe=False)
    assert rank_samples([a, b], ("01",), "rna")[0] is b


def test_a_primary_tumour_goes_before_a_metastasis() -> None:
    pair = ("TCGA-02-0001-06A-11R-9999-07", "TCGA-02-0001-01A-01R-0001-07")
    assert best(*pair, types=("01", "06")) == pair[1]


def test_an_array_with_more_probes_goes_first() -> None:
    small, big = sample("TCGA-02-0001-01A", size=27_578), sample("TCGA-02-0001-01A", size=486_427)
    assert rank_samples([small, big], ("01",), "dna")[0] is big
