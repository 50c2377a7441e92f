"""Wide tables from disk: text columns apart from numbers."""

import csv
import gzip
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from omnisurv.data.audit import some
from omnisurv.data.readers.sniff import Floats
from omnisurv.data.tables import ID_COLUMNS, MISSING, peek, separator
from omnisurv.errors import DataError

if TYPE_CHECKING:
    import pyarrow

_TOKENS = sorted(
    {
        form
        for token in MISSING
        for t in (token, token.replace("_", " "))
        for form in (t, t.upper(), t.capitalize(), t.title())
    }
    | {"NaN", "<NA>", "nan"}
)
_TWO_HEADERS = re.compile(r"^(Hybridization REF|Composite Element REF)\t")
"""Firehose tables say in a second header row what each column holds."""


MANY_COLUMNS = 500
ENTREZ = "Entrez_Gene_Id"
"""cBioPortal's second column: a name, though it looks like a number."""


@dataclass(frozen=True)
class Wide:
    """A table as it stands on disk."""

    texts: pd.DataFrame
    """Columns of texts: ids and descriptions of the rows."""
    columns: "pd.Index[str]"
    """Names of the columns of numbers."""
    values: Floats
    """(rows, columns)."""


def load_wide(path: Path, id_column: str | None = None) -> Wide:
    """Read a TSV, CSV (gz too), parquet or h5ad file.

    Raises:
        DataError: the file is damaged, or a column of numbers holds something else.
    """
    try:
        if path.suffix == ".h5ad":
            return _load_h5ad(path)
        if path.suffix in (".parquet", ".pq"):
            return _separate(_load_parquet(path), path, id_column)
        return _separate(_load_text(path, id_column), path, id_column)
    except DataError:
        raise
    except (OSError, EOFError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path} cannot be read as a table: {reason}") from None


def _load_h5ad(path: Path) -> Wide:
    import anndata

    data = anndata.read_h5ad(path)
    values = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    texts = pd.DataFrame({"index": data.obs_names.astype(str)})
    for name in data.obs.columns:
        if not pd.api.types.is_numeric_dtype(data.obs[name]):
            texts[str(name)] = data.obs[name].astype(object).to_numpy()
    return Wide(texts, pd.Index(data.var_names.astype(str)), values.astype(np.float32))


def _load_parquet(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    if isinstance(frame.index, pd.RangeIndex) and frame.index.name is None:
        return frame
    name = frame.index.name or "index"
    ids = pd.Series(frame.index.astype(str), index=frame.index, name=name)
    return pd.concat([ids, frame], axis=1).reset_index(drop=True)


def _load_text(path: Path, id_column: str | None) -> pd.DataFrame:
    import pyarrow

    comments, header = peek(path)
    mark = separator(header)
    names, first = _names(path, comments, header, mark)
    skipped = comments + 1 + bool(_TWO_HEADERS.match(header))
    # Ids may look like numbers: 001 must not become 1.
    types = {
        str(i): "string"
        for i, name in enumerate(names)
        if i == 0 or name == id_column or name.lower() in ID_COLUMNS
    }
    guessed = _guess_numbers(names, first) if len(names) > MANY_COLUMNS else {}
    block = max(1 << 24, 32 * len(header))
    try:
        table = _read_csv(path, len(names), skipped, mark, {**guessed, **types}, block)
    except pyarrow.ArrowInvalid:
        if not guessed:
            raise
        table = _read_csv(path, len(names), skipped, mark, types, block)
    frame: pd.DataFrame = table.to_pandas()
    frame.columns = pd.Index(names)
    return frame


def _read_csv(
    path: Path, columns: int, skipped: int, mark: str, types: dict[str, str], block: int
) -> "pyarrow.Table":
    from pyarrow import csv as arrow

    return arrow.read_csv(
        str(path),
        read_options=arrow.ReadOptions(
            column_names=[str(i) for i in range(columns)], skip_rows=skipped, block_size=block
        ),
        parse_options=arrow.ParseOptions(delimiter=mark),
        convert_options=arrow.ConvertOptions(
            null_values=_TOKENS, strings_can_be_null=True, column_types=types
        ),
    )


def _guess_numbers(names: list[str], first: list[str]) -> dict[str, str]:
    """Return which columns start with a number; telling the types of many columns is slow."""
    return {
        str(i): "float32"
        for i, (name, cell) in enumerate(zip(names, first, strict=False))
        if name != ENTREZ and _is_number(cell)
    }


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip() in _TOKENS
    return True


def _names(path: Path, comments: int, header: str, mark: str) -> tuple[list[str], list[str]]:
    """Return the column names and the cells of the first row; R leaves out its row names' name."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", errors="replace") as lines:
        line = next(islice(lines, comments + 1, None), "").rstrip("\r\n")
    if not line:
        raise DataError(f"{path} has no rows; is it a wide table with a header?")
    names, first = csv.reader([header, line], delimiter=mark)
    if len(first) == len(names) + 1:
        names = ["index", *names]
    if len(names) < 2:
        raise DataError(f"{path} has one column; is it a wide table with a header?")
    return [name.strip() for name in names], first


def _separate(frame: pd.DataFrame, path: Path, id_column: str | None) -> Wide:
    """Part the columns of numbers from those of texts."""
    if frame.empty:
        raise DataError(f"{path} has no rows")
    names = [str(name) for name in frame.columns]
    numeric = np.array(
        [
            pd.api.types.is_numeric_dtype(kind) and name not in (id_column, ENTREZ)
            for name, kind in zip(names, frame.dtypes, strict=True)
        ]
    )
    # A column without any value has no type; it is a column of numbers that nobody measured.
    for place in np.flatnonzero(~numeric).tolist():
        column: pd.Series[Any] = frame.iloc[:, place]
        if place == 0 or names[place] in (id_column, ENTREZ):
            continue
        if column.isna().all():
            numeric[place] = True
        else:
            _require_text(column, names[place], path)
    texts = frame.loc[:, ~numeric].astype(object)
    texts.columns = pd.Index([n for n, yes in zip(names, numeric, strict=True) if not yes])
    columns = pd.Index([n for n, yes in zip(names, numeric, strict=True) if yes], dtype=object)
    values = frame.loc[:, numeric].to_numpy(dtype=np.float32, na_value=np.nan)
    return Wide(texts.reset_index(drop=True), columns, values)


def _require_text(column: "pd.Series[Any]", name: str, path: Path) -> None:
    """Raise DataError if a column of numbers holds a few other things."""
    known = column.dropna().astype(str)
    numbers = pd.to_numeric(known, errors="coerce")
    share = float(numbers.notna().mean()) if len(known) else 0.0
    if 0.5 <= share < 1.0:
        wrong = known[numbers.isna()]
        raise DataError(
            f"{path}: column '{name}' has {some(list(wrong.unique()), 3)} among its numbers (row "
            f"{int(wrong.index[0]) + 1}); mend the table or write NA"
        )
