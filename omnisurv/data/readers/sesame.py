"""DNA methylation betas as the GDC gives them: one file per sample, several arrays."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.gdc import open_download
from omnisurv.data.readers.names import NamedFeatures, drop_unmeasured, name_features
from omnisurv.data.readers.parsed import Chosen, Layouts, Parser, hash_of, read_best
from omnisurv.data.sources import SesameSource
from omnisurv.data.store import Decoded, Unit
from omnisurv.data.tables import load_table, peek
from omnisurv.errors import DataError

if TYPE_CHECKING:
    import pyarrow
    from anndata import AnnData

Floats = NDArray[np.float32]

WANTED = re.compile(r"\.level3betas\.txt(\.gz)?$|\.gdc_hg38\.txt(\.gz)?$")
OTHER = re.compile(r"\.idat(\.gz)?$")
ARRAYS = {"27k": 27_578, "450k": 486_427, "EPIC": 865_918, "EPICv2": 930_659}
"""Rows of a whole file of each array (an older 450k file has 485,577)."""
HEADER = "Composite Element REF"
"""First column of the older, lifted-over files, which have a header."""


def read_gdc_sesame(source: SesameSource, context: ReadContext) -> "AnnData":
    """Return patients × CpG probes of a GDC download; NaN is masked or not on the array.

    The array of each file is told by its probes and stands in ``obs["platform"]``.

    Raises:
        DataError: no file can be read, or nothing says whose they are.
    """
    download = open_download(source, context, WANTED, OTHER, "dna", size=_count_rows)
    layouts = Layouts(lambda file: _read_betas(file)[0])
    arrays: dict[str, str] = {}

    def accept(file: Path, betas: Floats, layout: str) -> Floats:
        arrays[layout] = _array_of(file.name, len(betas))
        if source.platforms is not None and arrays[layout] not in source.platforms:
            raise DataError(f"platform {arrays[layout]} is not among `platforms:`")
        return betas

    chosen = read_best(download, Parser(decode_betas, {}, accept, layouts), context)
    features = drop_unmeasured(_gather(chosen, layouts, source, context))
    for note in dict.fromkeys(features.notes):
        context.note("dropped", note, file=source.path)
    platform = [arrays[one.layout] for one in chosen.values()]
    _note_platforms(pd.Series(platform), len(features.var), source, context)
    return _to_anndata(features, chosen, platform, source.path)


def decode_betas(unit: Unit, options: Mapping[str, Any]) -> Decoded:
    """Return the betas (probes,) of a file; ``layout`` is the hash of its probes."""
    (path,) = unit.files
    probes, betas = _read_betas(path)
    return Decoded(betas, {"layout": hash_of(probes)})


def _count_rows(path: Path) -> int:
    import gzip

    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as lines:
            return sum(block.count(b"\n") for block in iter(lambda: lines.read(1 << 20), b""))
    except (OSError, EOFError):
        return 0


def _read_betas(path: Path) -> "tuple[pyarrow.Array, Floats]":
    """Return probes and betas of a file, with or without a header."""
    import pyarrow
    from pyarrow import csv

    try:
        _, first = peek(path)
        names = first.split("\t")
        older = names[0] == HEADER
        if older and "Beta_value" not in names:
            raise DataError("no column 'Beta_value'")
        if not older:
            names = [HEADER, "Beta_value", *(f"more{i}" for i in range(len(names) - 2))]
        table = csv.read_csv(
            str(path),
            read_options=csv.ReadOptions(
                column_names=names, skip_rows=int(older), use_threads=False
            ),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=csv.ConvertOptions(
                include_columns=[HEADER, "Beta_value"],
                column_types={HEADER: "string", "Beta_value": "float32"},
                null_values=["NA", "", "NaN", "nan"],
            ),
        )
    except (pyarrow.ArrowInvalid, pyarrow.ArrowKeyError, OSError, EOFError, DataError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())[:120]}") from None
    betas = np.asarray(table["Beta_value"].to_numpy(zero_copy_only=False), dtype=np.float32)
    with np.errstate(invalid="ignore"):
        outside = int(((betas < 0) | (betas > 1)).sum())
    if outside or not np.isfinite(betas).any():
        why = f"{outside} values outside 0 and 1 are no betas" if outside else "no probe has values"
        raise DataError(f"{path}: {why}")
    return table[HEADER].combine_chunks(), betas


def _array_of(name: str, probes: int) -> str:
    """Return the array of a file, by its name if that says so, else by its probes."""
    if "HumanMethylation27" in name:
        return "27k"
    if "HumanMethylation450" in name:
        return "450k"
    for array, size in ARRAYS.items():
        if abs(probes - size) <= 0.02 * size:
            return array
    return f"{probes} probes"


def _gather(
    chosen: "dict[str, Chosen[Floats]]",
    layouts: Layouts,
    source: SesameSource,
    context: ReadContext,
) -> NamedFeatures:
    """Return all patients on one list of probes; NaN where an array lacks a probe."""
    named: dict[str, tuple[list[int], NamedFeatures]] = {}
    for layout in layouts.used(chosen.values()):
        rows = [i for i, one in enumerate(chosen.values()) if one.layout == layout]
        block = np.stack([one.payload for one in chosen.values() if one.layout == layout])
        raw = pd.Index(layouts.known[layout].to_pylist(), dtype=object)
        named[layout] = rows, name_features(raw, block, "probe")
    probes = _probes(source, [features.var.index for _, features in named.values()], context)
    values = np.full((len(chosen), len(probes)), np.nan, dtype=np.float32)
    for rows, features in named.values():
        places = probes.get_indexer(features.var.index)
        known = places >= 0
        values[np.ix_(np.array(rows), places[known])] = features.values[:, known]
    var = pd.DataFrame({"id": probes.to_numpy()}, index=probes.rename("feature"))
    return NamedFeatures(values, var, [n for _, features in named.values() for n in features.notes])


def _probes(
    source: SesameSource, lists: "list[pd.Index[str]]", context: ReadContext
) -> "pd.Index[str]":
    lists = sorted(lists, key=len, reverse=True)
    everything = pd.Index(dict.fromkeys(probe for one in lists for probe in one), dtype=object)
    if source.probes == "union":
        return everything
    if source.probes == "shared":
        shared = everything
        for one in lists:
            shared = shared[shared.isin(one)]
        if not len(shared):
            raise DataError(f"{source.path}: the platforms share no probe; say `probes: union`")
        return shared
    listed = load_table(context.path(source.probes)).iloc[:, 0]
    found = everything[everything.isin(set(listed))]
    if not len(found):
        raise DataError(f"none of the probes in {source.probes} is in {source.path}")
    return found


def _note_platforms(
    platform: "pd.Series[str]", probes: int, source: SesameSource, context: ReadContext
) -> None:
    counts = platform.value_counts()
    say = ", ".join(f"{name}: {n} patients" for name, n in counts.items())
    context.note("kept", f"{probes} probes ({source.probes}); {say}", file=source.path)
    if len(counts) > 1:
        context.note(
            "warning",
            f"several platforms ({say}): a batch that often goes with the diagnosis; probes a "
            "platform lacks are missing, or say `probes: shared`",
            file=source.path,
        )


def _to_anndata(
    features: NamedFeatures, chosen: "dict[str, Chosen[Floats]]", platform: list[str], source: str
) -> "AnnData":
    import anndata

    obs = pd.DataFrame(
        {
            "sample": [one.sample.name for one in chosen.values()],
            "file": [one.sample.file for one in chosen.values()],
            "platform": platform,
        },
        index=pd.Index(list(chosen), name="patient"),
    )
    uns = {"scale": "beta", "source": source}
    return anndata.AnnData(features.values, obs=obs, var=features.var, uns=uns)
