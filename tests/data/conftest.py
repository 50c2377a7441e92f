"""Small files in the layouts that people really have."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from omnisurv.data.readers import ReadContext
from omnisurv.data.spec import PatientRule

OLD_SHEET = ["File ID", "File Name", "Data Category", "Data Type", "Project ID", "Case ID"]
OLD_SHEET += ["Sample ID", "Sample Type"]
NEW_SHEET = [*OLD_SHEET[:-1], "Tissue Type", "Tumor Descriptor", "Specimen Type"]
NEW_SHEET += ["Preservation Method"]
STAR = "rna_seq.augmented_star_gene_counts.tsv"
BETAS = "methylation_array.sesame.level3betas.txt"
GENES = {
    "ENSG00000000003.15": ("TSPAN6", "protein_coding"),
    "ENSG00000000005.6": ("TNMD", "protein_coding"),
    "ENSG00000223972.5": ("DDX11L1", "lncRNA"),
    "ENSG00000002586.20": ("CD99", "protein_coding"),
    "ENSG00000002586.20_PAR_Y": ("CD99", "protein_coding"),
}


@pytest.fixture
def context(tmp_path: Path) -> ReadContext:
    """Files of TCGA patients in ``tmp_path``."""
    return ReadContext(tmp_path, PatientRule(id="tcga"))


@pytest.fixture
def plain_context(tmp_path: Path) -> Callable[..., ReadContext]:
    """Files whose names are patient ids as they stand."""

    def make(*known: str) -> ReadContext:
        return ReadContext(tmp_path, PatientRule(id="column"), known=frozenset(known))

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    """Write a text file; lines are stripped of indentation, ``|`` becomes a tab."""

    def put(name: str, text: str) -> str:
        lines = [line.strip() for line in text.strip().splitlines()]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line.replace("|", "\t") for line in lines) + "\n")
        return name

    return put


class GdcFolder:
    """A GDC download in the making."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[list[str]] = []
        self.count = 0

    def star(self, sample: str, scale: float = 1.0, **said: str) -> Path:
        """Add a STAR file; gene i has the value scale · i in every column."""
        lines = ["# gene-model: GENCODE v36"]
        lines.append(
            "gene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second"
            "\ttpm_unstranded\tfpkm_unstranded\tfpkm_uq_unstranded"
        )
        for name in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"):
            lines.append(f"{name}\t\t\t99\t99\t99\t\t\t")
        for i, (gene, (symbol, kind)) in enumerate(GENES.items(), start=1):
            n = int(100 * scale * i)
            v = scale * i
            lines.append(f"{gene}\t{symbol}\t{kind}\t{n}\t{n}\t{n}\t{v}\t{v / 2}\t{v / 4}")
        return self.file("rna", STAR, sample, "\n".join(lines) + "\n", **said)

    def betas(self, sample: str, betas: dict[str, object], **said: str) -> Path:
        """Add a SeSAMe file."""
        text = "".join(f"{probe}\t{beta}\n" for probe, beta in betas.items())
        return self.file("dnam", BETAS, sample, text, **said)

    def file(self, folder: str, ending: str, sample: str, text: str, **said: str) -> Path:
        """Add a file and its row of the sample sheet."""
        self.count += 1
        uuid = f"00000000-0000-0000-0000-{self.count:012d}"
        name = said.pop("name", f"file{self.count:04d}.{ending}")
        path = self.root / folder / uuid / name
        (path.parent / "logs").mkdir(parents=True)
        (path.parent / "logs" / f"{name}.parcel").write_text("log")
        path.write_text(text)
        case = ", ".join(part.strip()[:12] for part in sample.split(","))
        row = {
            "File ID": uuid,
            "File Name": name,
            "Project ID": said.pop("project", "TCGA-GBM"),
            "Case ID": case,
            "Sample ID": sample,
            **{key.replace("_", " ").title(): value for key, value in said.items()},
        }
        self.rows.append(row)
        return path

    def sheet(self, new: bool = True, name: str = "gdc_sample_sheet.2024-01-01.tsv") -> str:
        """Write the sample sheet of all files so far."""
        columns = NEW_SHEET if new else OLD_SHEET
        pd.DataFrame(self.rows).reindex(columns=columns).to_csv(
            self.root / name, sep="\t", index=False
        )
        return name

    def metadata(self, aliquots: dict[Path, str], sizes: bool = False) -> None:
        """Write the cart's metadata."""
        entries = [
            {
                "file_id": path.parent.name,
                "file_name": path.name,
                **({"file_size": path.stat().st_size} if sizes else {}),
                "associated_entities": [{"entity_submitter_id": aliquot, "case_id": "c1"}],
                "cases": [{"case_id": "c1", "submitter_id": aliquot[:12]}],
            }
            for path, aliquot in aliquots.items()
        ]
        (self.root / "metadata.cart.2024-01-01.json").write_text(json.dumps(entries))


@pytest.fixture
def gdc(tmp_path: Path) -> GdcFolder:
    """An empty GDC download."""
    return GdcFolder(tmp_path)


@pytest.fixture
def survival(tmp_path: Path) -> Callable[..., Path]:
    """Write a clinical table of n TCGA patients whose subtype b dies sooner."""

    def put(n: int = 60, seed: int = 0, name: str = "clinical.tsv", **columns: object) -> Path:
        rng = np.random.default_rng(seed)
        subtype = rng.choice(["a", "b"], n)
        death = rng.exponential(np.where(subtype == "b", 300, 1500))
        censored = rng.uniform(200, 2500, n)
        table = pd.DataFrame(
            {
                "patient": [f"TCGA-{'ABCDEF'[i % 6]}X-{i:04d}" for i in range(n)],
                "time": np.minimum(death, censored).round(1),
                "event": (death <= censored).astype(int),
                "subtype": subtype,
                "age": rng.integers(30, 80, n),
                **columns,
            }
        )
        table.to_csv(tmp_path / name, sep="\t", index=False)
        return tmp_path / name

    return put


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real cohorts beside the checkout."""
    beside = Path(__file__).parents[2] / ".." / "shared" / "data"
    folder = Path(os.environ.get("OMNISURV_REALDATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set OMNISURV_REALDATA")
    return folder


def reasons(context: ReadContext) -> str:
    """Return all reasons of the audit, for tests to search."""
    return "\n".join(" ".join(row) for row in context.audit.rows)


@pytest.fixture
def audit(context: ReadContext) -> Callable[[], str]:
    """Return the audit so far as one text."""
    return lambda: reasons(context)
