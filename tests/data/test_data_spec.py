"""Data specs: what is refused, and the sentence that says so."""

import os
from pathlib import Path

import pytest
import yaml

from omnisurv.data.spec import DataSpec, PatientRule, resolve_root
from omnisurv.errors import SpecError

SPECS = Path(__file__).parents[2] / "data_specs"


def spec(**changes: object) -> dict[str, object]:
    return {
        "name": "toy",
        "endpoint": {"table": "c.tsv", "time": "time", "event": "event"},
        "labels": {"subtype": {"table": "c.tsv", "column": "subtype"}},
        "modalities": {"rna": {"kind": "rna", "source": {"format": "matrix", "path": "r.tsv"}}},
        **changes,
    }


def rna(**changes: object) -> dict[str, object]:
    return {"rna": {"kind": "rna", "source": {"format": "matrix", "path": "r.tsv"}, **changes}}


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_specs_parse(path: Path) -> None:
    assert DataSpec.load(path).modalities


def test_a_spec_survives_a_round_trip() -> None:
    first = DataSpec.load(SPECS / "tcga_glioma_gdc.yaml")
    assert DataSpec.model_validate_json(first.model_dump_json()) == first


def test_options_of_a_kind_stand_beside_its_source() -> None:
    parsed = DataSpec.parse(spec(modalities=rna(patch=32)))
    assert parsed.modalities["rna"].options == {"patch": 32}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"modalitys": {}}, r"spec: unknown key 'modalitys'\. Did you mean 'modalities'\?"),
        (
            {"modalities": rna(kind="rnaa")},
            r"modalities\.rna: unknown kind 'rnaa'\. Did you mean 'rna'",
        ),
        (
            {"modalities": rna(pach=3)},
            r"modalities\.rna: unknown key 'pach'\. Did you mean 'patch'\?",
        ),
        (
            {"modalities": rna(source={"format": "matrix", "pth": "x"})},
            r"modalities\.rna\.source: .*unknown key 'pth'\. Did you mean 'path'\?",
        ),
        (
            {"modalities": rna(source={"format": "gdc-str", "path": "x"})},
            r"modalities\.rna\.source: unknown format 'gdc-str'\. Did you mean 'gdc-star'\?",
        ),
        ({"modalities": rna(source={"path": "x"})}, r"rna\.source: key 'format' is missing"),
        ({"modalities": {"rna": {"kind": "rna"}}}, r"key 'modalities\.rna\.source' is missing"),
        ({"modalities": {}}, r"key 'modalities'"),
        ({"strata": ["subtpe"]}, r"strata: unknown label 'subtpe'\. Did you mean 'subtype'\?"),
        (
            {"splits": {"stratify": ["evnt"]}},
            r"splits\.stratify: unknown label 'evnt'\. Did you mean",
        ),
        ({"splits": {"test": 2}}, r"key 'splits\.test'"),
        ({"endpoint": {"table": "c.tsv", "time": "t"}}, r"needs `time` and `event`, or `death`"),
        ({"endpoint": {"table": "c", "time": "t", "event": "e", "death": "d"}}, "or `death`"),
        (
            {"endpoint": {"table": "c", "time": "t", "event": "e", "unit": "weeks"}},
            r"endpoint\.unit",
        ),
        ({"patients": {"id": "regex"}}, "`id: regex` and `pattern` go together"),
        (
            {"patients": {"id": "regex", "pattern": "("}},
            r"patients\.pattern is no regular expression",
        ),
        (
            {
                "modalities": {
                    "clinical": {
                        "kind": "table",
                        "columns": {"time": "continuous"},
                        "source": {"format": "table", "path": "c.tsv"},
                    }
                }
            },
            "'time' is the outcome and cannot be",
        ),
    ],
)
def test_mistakes_are_named_with_the_nearest_name(changes, sentence) -> None:
    with pytest.raises(SpecError, match=sentence) as caught:
        DataSpec.parse(spec(**changes))
    assert "\n" not in str(caught.value)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    (tmp_path / "cohort.yaml").write_text("a: [")
    with pytest.raises(
        SpecError, match=r"no data spec .*cohrt\.yaml\. Did you mean 'cohort\.yaml'"
    ):
        DataSpec.load(tmp_path / "cohrt.yaml")
    with pytest.raises(SpecError, match=r"cohort\.yaml is not YAML"):
        DataSpec.load(tmp_path / "cohort.yaml")
    (tmp_path / "cohort.yaml").write_text("- a")
    with pytest.raises(SpecError, match="is not a data spec: it needs keys"):
        DataSpec.load(tmp_path / "cohort.yaml")


def test_the_root_is_looked_for_in_a_stated_order(tmp_path: Path, monkeypatch) -> None:
    for name in ("said", "environment", "declared"):
        (tmp_path / name).mkdir()
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec(root="declared")))
    monkeypatch.setenv("OMNISURV_ROOT", os.fspath(tmp_path / "environment"))
    assert resolve_root(path, tmp_path / "said") == tmp_path / "said"
    assert resolve_root(path) == tmp_path / "environment"
    monkeypatch.delenv("OMNISURV_ROOT")
    assert resolve_root(path) == tmp_path / "declared"
    path.write_text(yaml.safe_dump(spec()))
    assert resolve_root(path) == tmp_path
    with pytest.raises(SpecError, match="--root: there is no folder"):
        resolve_root(path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("rule", "name", "patient"),
    [
        ({"id": "tcga"}, "TCGA-02-0001-01A-01R-1850-01", "TCGA-02-0001"),
        ({"id": "tcga"}, "tcga.02.0001.01A", "TCGA-02-0001"),
        ({"id": "tcga"}, "P1", None),
        ({"id": "brats"}, "BraTS-GLI-00001-000", "BraTS-GLI-00001"),
        ({"id": "brats"}, "BraTS20_Training_001", "BraTS20_Training_001"),
        ({"id": "column"}, " P1 ", "P1"),
        ({"id": "regex", "pattern": r"^(P\d+)_"}, "P12_tumour", "P12"),
        ({"id": "regex", "pattern": r"P\d+"}, "x_P12", "P12"),
        ({"id": "regex", "pattern": r"^(P\d+)_"}, "Q12", None),
    ],
)
def test_names_become_patients(rule, name, patient) -> None:
    assert PatientRule(**rule).patient(name) == patient
