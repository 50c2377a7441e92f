"""TCGA barcodes: which sample of a patient stands for the patient.

``TCGA-02-0001-01C-01D-0182-01`` is project-hospital-patient, sample type 01 and vial C, portion 01
and analyte D, plate 0182, centre 01. First the sample type is filtered, then duplicates are
ordered as Broad's GDAC does: frozen before FFPE; RNA analyte H before R before T, DNA analyte D
before G, W and X unless those are from a later plate; then the higher portion and plate.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Analyte = Literal["rna", "dna"]

_BARCODE = re.compile(
    r"^(?P<patient>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})"
    r"(?:-(?P<type>\d{2})(?P<vial>[A-Z])?"
    r"(?:-(?P<portion>\d{2})(?P<analyte>[A-Z])?"
    r"(?:-(?P<plate>[A-Z0-9]{4}))?)?)?(?![A-Z0-9])"
)

SAMPLE_TYPES = {
    "01": "primary tumour",
    "02": "recurrent tumour",
    "03": "primary blood cancer",
    "05": "additional new primary",
    "06": "metastasis",
    "07": "additional metastasis",
    "10": "blood normal",
    "11": "solid tissue normal",
    "12": "buccal normal",
    "14": "bone marrow normal",
    "20": "control",
    "40": "recurrent blood cancer",
    "50": "cell line",
    "60": "xenograft",
    "61": "xenograft",
}

PRIMARY = ("01",)
PRIMARY_BY_PROJECT = {"LAML": ("03",), "SKCM": ("01", "06")}

_RANK: dict[str, dict[str, int]] = {"rna": {"H": 0, "R": 1, "T": 2}, "dna": {"D": 0}}


@dataclass(frozen=True)
class Barcode:
    """The parts of a barcode; what a shorter one does not say is empty."""

    text: str
    patient: str
    type: str = ""
    vial: str = ""
    portion: str = ""
    analyte: str = ""
    plate: str = ""

    @property
    def hospital(self) -> str:
        """The tissue source site."""
        return self.patient[5:7]


def parse_barcode(text: object) -> Barcode | None:
    """Return the parts of a TCGA barcode; None if it is none. Dots are R's dashes."""
    found = _BARCODE.match(str(text).strip().upper().replace(".", "-"))
    if not found:
        return None
    parts = {key: value or "" for key, value in found.groupdict().items()}
    return Barcode(text=str(text), **parts)


def project_code(project: object) -> str:
    """Return ``GBM`` for ``TCGA-GBM``."""
    return str(project).strip().upper().removeprefix("TCGA-")


def primary_types(project: object = None) -> tuple[str, ...]:
    """Return the sample types that stand for a patient of the project, preferred first."""
    return PRIMARY_BY_PROJECT.get(project_code(project), PRIMARY)


@dataclass(frozen=True)
class Sample:
    """One candidate to stand for a patient."""

    name: str
    """What the audit calls it."""
    barcode: Barcode | None
    type: str = ""
    """Two digits; empty where the name does not say."""
    ffpe: bool | None = None
    """None: not known."""
    size: int = 0
    """More probes are better, whatever the plate."""
    position: int = 0
    """Where it stands in its table."""
    file: str = ""


def rank_samples(samples: Sequence[Sample], types: Sequence[str], analyte: Analyte) -> list[Sample]:
    """Return a patient's samples, best first, all of them of an accepted type."""
    later = _later_plate(samples) if analyte == "dna" else set()
    order = {code: place for place, code in enumerate(types)}
    by_name = sorted(samples, key=lambda s: s.name)
    # Python sorts are stable: the least important key first.
    by_plate = sorted(by_name, key=lambda s: _text(s, "plate"), reverse=True)
    by_portion = sorted(by_plate, key=lambda s: _text(s, "portion"), reverse=True)
    return sorted(
        by_portion,
        key=lambda s: (
            bool(s.ffpe),
            order.get(s.type, len(order)),
            -s.size,
            0 if s.name in later else _RANK[analyte].get(_text(s, "analyte"), 9),
            # Vial B is often FFPE, a hint only where nothing says so.
            _text(s, "vial") if s.ffpe is None else "",
        ),
    )


def _later_plate(samples: Sequence[Sample]) -> set[str]:
    """Return DNA samples of other analytes whose plate is later than that of all D samples."""
    plates = [_text(s, "plate") for s in samples if _text(s, "analyte") == "D"]
    if not plates:
        return set()
    return {
        s.name
        for s in samples
        if _text(s, "analyte") not in ("", "D") and _text(s, "plate") > max(plates)
    }


def _text(sample: Sample, part: str) -> str:
    return str(getattr(sample.barcode, part)) if sample.barcode else ""
