"""What a cohort is made of, as a YAML file says it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator

from omnisurv.config import Settings, parse
from omnisurv.data.segmentation import Segmentation, shared_cube, with_label_source
from omnisurv.data.sources import Names, Source
from omnisurv.errors import SpecError, did_you_mean
from omnisurv.registry import modalities as kinds

__all__ = [
    "DataSpec",
    "Endpoint",
    "Label",
    "ModalitySpec",
    "PatientRule",
    "Segmentation",
    "Source",
    "Splits",
    "resolve_root",
]

TCGA = re.compile(r"^TCGA[-.]([A-Z0-9]{2})[-.]([A-Z0-9]{4})(?![A-Z0-9])", re.IGNORECASE)
BRATS = re.compile(
    r"^(BraTS-[A-Za-z]+-\d+|BraTS\w*?_(?:Training|Validation)_\d+|BraTS2021_\d+|BraTS1[789]_\w+_\d+)",
    re.IGNORECASE,
)


class PatientRule(Settings):
    """How a file or sample name becomes a patient id."""

    id: Literal["tcga", "brats", "column", "regex"] = "tcga"
    """``tcga``: the first 12 characters of a barcode; ``brats``: a BraTS case without its visit;
    ``column``: names are patient ids as they stand; ``regex``: what ``pattern`` finds."""
    pattern: str | None = None

    @model_validator(mode="after")
    def _pattern_fits(self) -> "PatientRule":
        if (self.id == "regex") != (self.pattern is not None):
            raise ValueError("patients: `id: regex` and `pattern` go together")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"patients.pattern is no regular expression: {error}") from None
        return self

    def patient(self, name: object) -> str | None:
        """Return the patient a name belongs to; None if it names none."""
        text = str(name).strip()
        if self.id == "column":
            return text or None
        if self.id == "tcga":
            found = TCGA.match(text)
            return f"TCGA-{found[1]}-{found[2]}".upper() if found else None
        found = BRATS.match(text) if self.id == "brats" else re.search(self.pattern or "", text)
        if not found:
            return None
        return found[1] if found.re.groups else found[0]


def _event_values(values: object) -> object:
    """Take YAML's numbers and yes/no for what they are written as."""
    if not isinstance(values, Mapping):
        return values
    written: dict[str, Any] = {}
    for key, event in values.items():
        words = {True: ("true", "yes"), False: ("false", "no")}
        names = words[key] if isinstance(key, bool) else (str(key).strip().lower(),)
        written |= dict.fromkeys(names, event)
    return written


class Endpoint(Settings):
    """Where time and event stand: in two columns, or in GDC's death and follow-up columns."""

    table: str
    time: str | None = None
    event: str | None = None
    death: str | None = None
    """Column of the time of death."""
    follow_up: Names | None = None
    """Columns of the last contact; the latest counts."""
    follow_up_table: str | None = None
    """A second table with a row per follow-up."""
    status: str | None = None
    """Column that says who died."""
    unit: Literal["days", "months", "years"] = "days"
    id: str | None = None
    """Column of patient ids; sniffed by default."""
    event_values: Annotated[dict[str, Literal[0, 1]], BeforeValidator(_event_values)] | None = None
    """What the values of the event (or status) column mean: 1 = event, 0 = censored."""

    @model_validator(mode="after")
    def _complete(self) -> "Endpoint":
        pair, triple = (self.time, self.event), (self.death, self.follow_up)
        if (all(pair), any(triple)) == (True, False) and not self.status:
            return self
        if (all(triple), any(pair)) == (True, False):
            return self
        raise ValueError("endpoint needs `time` and `event`, or `death`, `follow_up` and `status`")

    @property
    def columns(self) -> set[str]:
        """All columns of the table that tell the outcome."""
        named = (self.time, self.event, self.death, self.status, *(self.follow_up or ()))
        return {name for name in named if name}


class Label(Settings):
    """A class of each patient, such as the subtype."""

    table: str
    column: str
    classes: tuple[str, ...] | dict[str, Names] | None = None
    """Values to use, in order; or class: the values that mean it. Others are unknown."""
    id: str | None = None


class Splits(Settings):
    """How patients are divided."""

    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    folds: Annotated[int, Field(ge=2)] = 5
    repeats: Annotated[int, Field(ge=1)] = 1
    group: str | None = None
    """Column whose groups, such as hospitals, stay whole. ``tissue_source_site`` is read from
    TCGA barcodes where no table has it."""
    stratify: tuple[str, ...] = ("event",)
    seed: int = 0
    table: str | None = None
    """A table of ``patient``, ``split`` (train, test) and perhaps ``fold`` instead."""


class ModalitySpec(Settings):
    """One modality: its kind, its source, and the options of the kind."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str
    source: SerializeAsAny[Source]

    @model_validator(mode="before")
    @classmethod
    def _source_of_kind(cls, values: Any) -> Any:
        return _with_source(values, "modality") if isinstance(values, Mapping) else values

    @property
    def options(self) -> dict[str, Any]:
        """The options of the kind, as written."""
        return dict(self.model_extra or {})


class DataSpec(Settings):
    """What a cohort is made of."""

    name: str
    root: str | None = None
    """Folder of the files, relative to the spec; ``--root`` and ``OMNISURV_ROOT`` go first."""
    recipe: str = "imputmae:small"
    patients: PatientRule = PatientRule()
    endpoint: Endpoint | None = None
    labels: dict[str, Label] = Field(default_factory=dict)
    strata: tuple[str, ...] = ()
    segmentation: Segmentation | None = None
    """Label maps of the MRI sequences, whose cubes must then be cut alike."""
    modalities: Annotated[dict[str, ModalitySpec], Field(min_length=1)]
    splits: Splits = Splits()

    @model_validator(mode="after")
    def _names_agree(self) -> "DataSpec":
        for key, names, known in (
            ("strata", self.strata, {*self.labels}),
            ("splits.stratify", self.splits.stratify, {"event", *self.labels}),
        ):
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: unknown label '{name}'.{did_you_mean(name, known)}")
        for name, modality in self.modalities.items():
            self._hides_outcome(name, modality)
        return self

    def _hides_outcome(self, name: str, modality: ModalitySpec) -> None:
        columns = modality.options.get("columns")
        if self.endpoint is None or not isinstance(columns, Mapping):
            return
        for column in self.endpoint.columns & set(columns):
            raise ValueError(
                f"modalities.{name}.columns: '{column}' is the outcome and cannot be an input; "
                "remove it"
            )

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "spec") -> "DataSpec":
        """Check a spec as read from YAML.

        Raises:
            SpecError: anything unknown, missing or of the wrong form, with the nearest name.
        """
        written = values.get("modalities")
        if not isinstance(written, Mapping):
            return parse(cls, values, where)
        checked = {
            name: _with_source(modality, f"{where}: modalities.{name}")
            for name, modality in written.items()
        }
        told = {**values, "modalities": checked}
        maps = values.get("segmentation")
        if isinstance(maps, Mapping):
            told["segmentation"] = with_label_source(maps, f"{where}: segmentation")
        spec = parse(cls, told, where)
        for name, modality in spec.modalities.items():
            _check_options(modality, f"{where}: modalities.{name}")
        if spec.segmentation is not None:
            shared_cube(spec.modalities, where)
        return spec

    @classmethod
    def load(cls, path: str | Path) -> "DataSpec":
        """Read a spec from a YAML file.

        Raises:
            SpecError: no such file, no YAML, or anything that ``parse`` refuses.
        """
        return cls.parse(_read_yaml(Path(path)), where=str(path))


def resolve_root(spec_path: "str | Path | DataSpec", root: str | Path | None = None) -> Path:
    """Return the folder of the files: ``root``, OMNISURV_ROOT, the spec's, or the spec's folder.

    Raises:
        SpecError: there is no such folder.
    """
    if isinstance(spec_path, DataSpec):
        declared, folder = spec_path.root, Path()
    else:
        declared, folder = _read_yaml(Path(spec_path)).get("root"), Path(spec_path).parent
    candidates = (
        ("--root", root),
        ("OMNISURV_ROOT", os.environ.get("OMNISURV_ROOT") or None),
        (
            f"{spec_path}: root" if isinstance(spec_path, str | Path) else "root",
            folder / declared if declared else None,
        ),
    )
    for said_by, candidate in candidates:
        if candidate is not None:
            if not Path(candidate).is_dir():
                raise SpecError(f"{said_by}: there is no folder {candidate}")
            return Path(candidate)
    return folder


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise SpecError(f"there is no data spec {path}.{did_you_mean(path.name, beside)}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SpecError(f"{path} is not a data spec: it needs keys such as `name`, `modalities`")
    return values


def _with_source(modality: object, where: str) -> object:
    """Parse the source first, as the kind's format has it, so that an error speaks of its keys."""
    if not isinstance(modality, Mapping) or not isinstance(modality.get("source"), Mapping):
        return modality
    kind = modality.get("kind")
    if kind is None:
        return modality
    if kind not in kinds.names():
        raise SpecError(f"{where}: unknown kind '{kind}'.{did_you_mean(kind, kinds.names())}")
    formats: Mapping[str, type[Source]] = kinds.get(kind).formats
    source = modality["source"]
    format_ = source.get("format")
    if format_ is None:
        raise SpecError(f"{where}.source: key 'format' is missing.{did_you_mean('', formats)}")
    if format_ not in formats:
        known = {name for _, other in kinds for name in other.formats}
        if format_ in known:
            raise SpecError(
                f"{where}: kind '{kind}' is read from {' or '.join(sorted(formats))}, "
                f"not from '{format_}'"
            )
        hint = did_you_mean(str(format_), known)
        raise SpecError(f"{where}.source: unknown format '{format_}'.{hint}")
    return {**modality, "source": parse(formats[format_], source, f"{where}.source")}


def _check_options(modality: ModalitySpec, where: str) -> None:
    parse(kinds.get(modality.kind).Options, modality.options, where)
