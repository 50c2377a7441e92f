"""How a GDC download lies on disk: a folder for each file, and the sample sheet."""

import uuid
from pathlib import Path
from typing import NamedTuple

import numpy as np

SHEET_COLUMNS = (
    "File ID",
    "File Name",
    "Data Category",
    "Data Type",
    "Project ID",
    "Case ID",
    "Sample ID",
    "Tissue Type",
    "Tumor Descriptor",
    "Specimen Type",
    "Preservation Method",
)
DATA_TYPES = {
    "rna": (
        "Transcriptome Profiling",
        "Gene Expression Quantification",
        "rna_seq.augmented_star_gene_counts.tsv",
    ),
    "dnam": (
        "DNA Methylation",
        "Methylation Beta Value",
        "methylation_array.sesame.level3betas.txt",
    ),
    "wsi": ("Biospecimen", "Slide Image", "svs"),
}
Row = tuple[str, ...]
"""A row of the sample sheet."""


class Sample(NamedTuple):
    """A sort of sample and the share of patients who have one."""

    suffix: str
    tissue: str
    descriptor: str
    preservation: str
    share: float


def place(
    rng: np.random.Generator,
    modality: str,
    project: str,
    of: tuple[str, Sample],
    out: Path,
    barcode: str = "",
) -> tuple[Path, Row]:
    """Make the folder of one file; return the file's path and its row of the sample sheet.

    Only names of slides begin with a ``barcode``; all others are just another UUID.
    """
    category, data_type, ending = DATA_TYPES[modality]
    folder, file = (str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(2))
    name = f"{barcode}.{file.upper()}.{ending}" if barcode else f"{file}.{ending}"
    logs = out / modality / folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    (logs / f"{name}.parcel").touch()
    patient, sample = of
    row = (folder, name, category, data_type, f"TCGA-{project}", patient)
    kept = (sample.tissue, sample.descriptor, "Solid Tissue", sample.preservation)
    return out / modality / folder / name, (*row, f"{patient}-{sample.suffix}", *kept)
