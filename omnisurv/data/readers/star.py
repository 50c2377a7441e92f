"""STAR gene counts as the GDC gives them: one file per sample."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.gdc import open_download
from omnisurv.data.readers.names import NamedFeatures, name_features
from omnisurv.data.readers.parsed import Chosen, Layouts, Parser, hash_of, read_best
from omnisurv.data.sources import StarSource
from omnisurv.data.store import Decoded, Unit
from omnisurv.data.tables import peek
from omnisurv.errors import DataError

if TYPE_CHECKING:
    import pyarrow
    from anndata import AnnData

Floats = NDArray[np.float32]

WANTED = re.compile(r"\.star_gene_counts\.tsv(\.gz)?$|_star_gene_counts\.tsv(\.gz)?$")
OTHER = re.compile(r"\.htseq\.|\.htseq_counts|\.FPKM(-UQ)?\.txt|\.rsem\.", re.IGNORECASE)
COLUMNS = {
    "counts": "unstranded",
    "tpm": "tpm_unstranded",
    "fpkm": "fpkm_unstranded",
    "fpkm_uq": "fpkm_uq_unstranded",
}


def read_gdc_star(
    source: StarSource,
    context: ReadContext,
    *,
    value: Literal["counts", "tpm", "fpkm", "fpkm_uq"],
) -> "AnnData":
    """Return patients × genes of a GDC download; genes are unversioned Ensembl ids.

    Of each file only the column is kept, in the store, so thousands of files fit and a second
    reading is short.

    Raises:
        DataError: no file can be read, or nothing says whose they are.
    """
    download = open_download(source, context, WANTED, OTHER, "rna")
    genes: dict[str, pd.DataFrame] = {}

    def accept(file: Path, values: Floats, layout: str) -> Floats:
        if layout not in genes:
            genes[layout] = _describe_genes(file, source.genes)
        kept: Floats = values[genes[layout]["row"].to_numpy()]
        if not np.isfinite(kept).all():
            raise DataError(f"{int((~np.isfinite(kept)).sum())} genes have no value")
        return kept

    column = COLUMNS[value]
    layouts = Layouts(lambda file: _read_columns(file, column)[0])
    parser = Parser(decode_counts, {"column": column}, accept, layouts)
    chosen = read_best(download, parser, context)
    features = _gather(chosen, genes, layouts, context)
    for note in features.notes:
        context.note("dropped", note, file=source.path)
    context.note(
        "kept",
        f"{len(chosen)} patients, {len(features.var)} genes ({source.genes}), {COLUMNS[value]}",
        file=source.path,
    )
    return _to_anndata(features, chosen, value, source.path)


def decode_counts(unit: Unit, options: Mapping[str, Any]) -> Decoded:
    """Return one ``column`` (rows,) of a file; ``layout`` is the hash of its gene ids."""
    (path,) = unit.files
    ids, values = _read_columns(path, options["column"])
    return Decoded(values, {"layout": hash_of(ids)})


def _read_columns(path: Path, column: str) -> "tuple[pyarrow.Array, Floats]":
    """Return the gene ids and one column of values; the columns are found by name."""
    import pyarrow
    from pyarrow import csv

    try:
        comments, header = peek(path)
        if "gene_id" not in header.split("\t") or column not in header.split("\t"):
            raise DataError(f"no column '{column}': another workflow or version?")
        table = csv.read_csv(
            str(path),
            read_options=csv.ReadOptions(skip_rows=comments, use_threads=False),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=csv.ConvertOptions(
                include_columns=["gene_id", column],
                column_types={"gene_id": "string", column: "float32"},
            ),
        )
    except (pyarrow.ArrowInvalid, OSError, EOFError, UnicodeDecodeError, DataError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())[:120]}") from None
    if not table.num_rows:
        raise DataError(f"{path}: no genes")
    values = table[column].to_numpy(zero_copy_only=False)
    return table["gene_id"].combine_chunks(), np.asarray(values, dtype=np.float32)


def _describe_genes(path: Path, genes: str) -> pd.DataFrame:
    """Return id, symbol, type and row of the genes that are kept."""
    comments, _ = peek(path)
    table = pd.read_csv(
        path, sep="\t", skiprows=comments, usecols=["gene_id", "gene_name", "gene_type"], dtype=str
    )
    table["row"] = np.arange(len(table))
    is_gene = ~table["gene_id"].str.startswith("N_")
    if genes == "protein_coding":
        is_gene &= table["gene_type"] == "protein_coding"
    if not is_gene.any():
        raise DataError(f"no {genes} genes")
    return table[is_gene]


def _gather(
    chosen: "dict[str, Chosen[Floats]]",
    genes: dict[str, pd.DataFrame],
    layouts: Layouts,
    context: ReadContext,
) -> NamedFeatures:
    """Return all patients on one list of genes; a gene that a file lacks is NaN there."""
    used = layouts.used(chosen.values())
    whole = pd.concat([genes[layout] for layout in used]).drop_duplicates("gene_id")
    if len(used) > 1:
        sizes = ", ".join(str(len(genes[layout])) for layout in used)
        reason = f"files have {len(used)} lists of genes ({sizes}); matched by unversioned id"
        context.note("warning", reason)
    index = pd.Index(whole["gene_id"])
    places = {layout: index.get_indexer(genes[layout]["gene_id"]) for layout in used}
    values = np.full((len(chosen), len(index)), np.nan, dtype=np.float32)
    for row, one in enumerate(chosen.values()):
        values[row, places[one.layout]] = one.payload
    named = name_features(index, values, "ensembl")
    described = whole.set_index("gene_id").loc[named.var["id"]]
    var = named.var.assign(
        symbol=described["gene_name"].fillna("").to_numpy(),
        gene_type=described["gene_type"].fillna("").to_numpy(),
    )
    return NamedFeatures(named.values, var, named.notes)


def _to_anndata(
    features: NamedFeatures, chosen: "dict[str, Chosen[Any]]", value: str, source: str
) -> "AnnData":
    import anndata

    obs = pd.DataFrame(
        {
            "sample": [one.sample.name for one in chosen.values()],
            "file": [one.sample.file for one in chosen.values()],
        },
        index=pd.Index(list(chosen), name="patient"),
    )
    uns = {
        "scale": "counts" if value == "counts" else "linear",
        "source": source,
        "value": COLUMNS[value],
        "workflow": "GDC STAR - Counts",
    }
    return anndata.AnnData(features.values, obs=obs, var=features.var, uns=uns)
