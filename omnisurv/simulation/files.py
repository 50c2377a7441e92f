"""Write a simulated cohort as a GDC download lies on disk, traps included.

Beside the samples that belong in an analysis there are recurrent and normal ones, FFPE
duplicates, non-coding genes, a ``_PAR_Y`` gene, ``rs`` probes and download logs.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.simulation.download import SHEET_COLUMNS, Row, Sample, place
from omnisurv.simulation.generator import SOURCES, apply_link
from omnisurv.simulation.pictures import require_packages, write_mri, write_slides
from omnisurv.simulation.spec import SPEC, SPEC_WITH_PICTURES
from omnisurv.simulation.truth import SimulatedCohort

STAR_COLUMNS = (
    "gene_id",
    "gene_name",
    "gene_type",
    "unstranded",
    "stranded_first",
    "stranded_second",
    "tpm_unstranded",
    "fpkm_unstranded",
    "fpkm_uq_unstranded",
)
NON_CODING = 12
RS_PROBES = 3
Floats = NDArray[np.float64]


# Only the first sort belongs in an analysis.
SAMPLES = (
    Sample("01A", "Tumor", "Primary", "OCT", 1.0),
    Sample("01B", "Tumor", "Primary", "FFPE", 0.06),
    Sample("02A", "Tumor", "Recurrence", "OCT", 0.05),
    Sample("11A", "Normal", "Not Applicable", "OCT", 0.02),
)


def write(simulated: SimulatedCohort, out_dir: "Path | str") -> Path:
    """Write files, truth and spec into ``out_dir``; return the spec, ``cohort.yaml``.

    The folder holds ``clinical.tsv``, ``rna/`` and ``dnam/`` in GDC layout with their sample
    sheet, the wide matrices ``cnv_arm.tsv`` (arms × samples) and ``protein.tsv`` (samples ×
    proteins), and ``truth/``, which no model may read. A cohort with pictures also has ``mri/``
    as BraTS lies on disk, with a table of whose case is whose, and ``wsi/`` in GDC layout.

    Raises:
        InputError: there are pictures, and a package that writes them is not installed.
    """
    if simulated.look is not None:
        require_packages()
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([simulated.seed, 1])
    sheet = [*_write_rna(rng, simulated, out), *_write_dnam(rng, simulated, out)]
    if simulated.look is not None:
        write_mri(simulated, out)
        sheet += write_slides(simulated, out)
    table = pd.DataFrame(sheet, columns=list(SHEET_COLUMNS))
    table.to_csv(out / "gdc_sample_sheet.tsv", sep="\t", index=False)
    _write_clinical(simulated, out / "clinical.tsv")
    _write_arms(rng, simulated, out / "cnv_arm.tsv")
    protein = simulated.observed("protein")
    protein.index = pd.Index([f"{patient}-01A" for patient in protein.index], name="sample")
    protein.to_csv(out / "protein.tsv", sep="\t", na_rep="NA")
    _write_truth(simulated, out / "truth")
    spec = out / "cohort.yaml"
    spec.write_text(SPEC if simulated.look is None else SPEC_WITH_PICTURES, encoding="utf-8")
    return spec


def _samples(
    rng: np.random.Generator, simulated: SimulatedCohort, modality: str
) -> list[tuple[str, Sample]]:
    """Return patient and sample of each file, in no order."""
    has = simulated.availability.index[simulated.availability[modality]]
    pairs = [
        (str(patient), sample)
        for sample in SAMPLES
        for patient in has[rng.random(len(has)) < sample.share]
    ]
    return [pairs[i] for i in rng.permutation(len(pairs))]


def _values(
    rng: np.random.Generator,
    simulated: SimulatedCohort,
    modality: str,
    samples: list[tuple[str, Sample]],
) -> Floats:
    """Return the values of each file: the truth for primaries, new draws for all others."""
    patients = [patient for patient, _ in samples]
    block = simulated.observed(modality).loc[patients].to_numpy(dtype=float)
    other = np.array([sample is not SAMPLES[0] for _, sample in samples])
    mean = simulated.mean[modality].loc[patients].to_numpy()[other]
    working = mean + simulated.noise[modality].to_numpy() * rng.standard_normal(mean.shape)
    source = SOURCES[modality]
    drawn = apply_link(source.link, working, source.decimals)
    block[other] = np.where(np.isnan(block[other]), np.nan, drawn)
    return block


def _write_rna(rng: np.random.Generator, simulated: SimulatedCohort, out: Path) -> list[Row]:
    samples = _samples(rng, simulated, "rna")
    values = _values(rng, simulated, "rna", samples)
    coding = [f"{gene}.{1 + i % 17}" for i, gene in enumerate(simulated.truth["rna"])]
    extra = [f"ENSG{80_000_000_000 + i:011d}.2" for i in range(NON_CODING)]
    genes = [*coding, *extra, "ENSG00000002586.20_PAR_Y"]
    symbols = [f"SIM{i}" for i in range(1, len(genes))] + ["CD99"]
    types = ["protein_coding"] * len(coding) + ["lncRNA"] * NON_CODING + ["protein_coding"]
    heads = ["\t".join(parts) for parts in zip(genes, symbols, types, strict=True)]
    kilobases = rng.uniform(0.5, 6.0, size=len(genes))
    rows = []
    for sample, coded in zip(samples, values, strict=True):
        silent = np.append(np.round(rng.exponential(0.2, NON_CODING), 4), 0.0)
        path, row = place(rng, "rna", simulated.patients["project"][sample[0]], sample, out)
        depth = rng.uniform(15.0, 60.0)
        text = _star_text(rng, heads, np.append(coded, silent), kilobases * depth)
        path.write_text(text, encoding="utf-8")
        rows.append(row)
    return rows


def _star_text(rng: np.random.Generator, heads: list[str], fpkm_uq: Floats, reads: Floats) -> str:
    """Return a STAR file whose columns agree with each other; ``fpkm_uq`` is exact."""
    counts = np.round(fpkm_uq * reads).astype(int)
    first = rng.binomial(counts, 0.5)
    tpm = fpkm_uq * 1e6 / max(float(fpkm_uq.sum()), 1e-9)
    fpkm = fpkm_uq * rng.uniform(0.8, 1.2)
    columns = zip(heads, counts, first, counts - first, tpm, fpkm, fpkm_uq, strict=True)
    body = [f"{h}\t{n}\t{a}\t{b}\t{t:.4f}\t{f:.4f}\t{u:.4f}" for h, n, a, b, t, f, u in columns]
    total = int(counts.sum())
    lost = rng.integers(total // 50, total // 10 + 2, size=4)
    names = ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")
    tally = [f"{name}\t\t\t{n}\t{n}\t{n}\t\t\t" for name, n in zip(names, lost, strict=True)]
    header = ["# gene-model: GENCODE v36", "\t".join(STAR_COLUMNS)]
    return "\n".join([*header, *tally, *body]) + "\n"


def _write_dnam(rng: np.random.Generator, simulated: SimulatedCohort, out: Path) -> list[Row]:
    samples = _samples(rng, simulated, "dnam")
    values = _values(rng, simulated, "dnam", samples)
    probes = [*simulated.truth["dnam"], *(f"rs9000{i:02d}" for i in range(RS_PROBES))]
    early = simulated.patients["era"] == "early"
    on_small = simulated.measured["dnam"][early].any(axis=0).to_list() + [True] * RS_PROBES
    rows = []
    for sample, betas in zip(samples, values, strict=True):
        path, row = place(rng, "dnam", simulated.patients["project"][sample[0]], sample, out)
        genotypes = rng.choice([0.02, 0.5, 0.98], RS_PROBES)
        # Probes that the small array lacks have no row at all; masked ones say NA.
        lines = [
            f"{probe}\t{'NA' if np.isnan(beta) else f'{beta:.6f}'}"
            for probe, beta, small in zip(probes, [*betas, *genotypes], on_small, strict=True)
            if small or not early[sample[0]]
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        rows.append(row)
    return rows


def _write_clinical(simulated: SimulatedCohort, path: Path) -> None:
    """Write one row per patient with GDC's token for what is not known."""
    known = simulated.clinical
    died = known["OS"] == 1.0
    vital = pd.Series(np.where(died, "Dead", "Alive"), known.index).where(known["OS"].notna())
    known.insert(2, "vital_status", vital)
    known.insert(3, "days_to_death", known["OS.time"].where(died))
    known.insert(4, "days_to_last_follow_up", known["OS.time"].where(~died))
    whole = known.select_dtypes("number").columns
    known[whole] = known[whole].astype("Int64")
    known.index.name = "case_submitter_id"
    known.to_csv(path, sep="\t", na_rep="'--")


def _write_arms(rng: np.random.Generator, simulated: SimulatedCohort, path: Path) -> None:
    """Write arms × samples, whole numbers, with a few recurrent tumours among the columns."""
    arms = simulated.observed("cnv_arm")
    again = arms[rng.random(len(arms)) < 0.03]
    drawn = rng.integers(-1, 2, size=again.shape)
    recurrent = pd.DataFrame(drawn, columns=arms.columns).astype(float)
    arms.index = pd.Index([f"{patient}-01" for patient in arms.index])
    recurrent.index = pd.Index([f"{patient}-02" for patient in again.index])
    wide = pd.concat([arms, recurrent]).T.astype("Int64")
    wide.index.name = "arm"
    wide.to_csv(path, sep="\t", na_rep="NA")


def _write_truth(simulated: SimulatedCohort, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    simulated.latent.to_parquet(folder / "latent.parquet")
    survival = simulated.patients.assign(
        time=simulated.time,
        event=simulated.event,
        log_hazard=simulated.log_hazard,
        oracle_risk=simulated.oracle_risk,
    )
    survival.to_parquet(folder / "survival.parquet")
    for name, values in simulated.truth.items():
        values.to_parquet(folder / f"complete_{name}.parquet")
    for name, values in simulated.mean.items():
        values.to_parquet(folder / f"mean_{name}.parquet")
        noise = simulated.noise[name].rename("sd").rename_axis("feature").to_frame()
        noise.to_parquet(folder / f"noise_{name}.parquet")
    if simulated.look is not None and simulated.look_mean is not None:
        simulated.look.to_parquet(folder / "look.parquet")
        simulated.look_mean.to_parquet(folder / "mean_look.parquet")
