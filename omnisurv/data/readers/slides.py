"""A folder of whole-slide images: whose they are, and which of them to tile."""

import re
from collections import Counter
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from omnisurv.data.audit import some
from omnisurv.data.barcodes import Sample
from omnisurv.data.images import Images
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.gdc import list_files, look_up, named_in, pick_sample
from omnisurv.data.readers.samples import keep_types
from omnisurv.data.readers.sheets import Described, Sheet, read_sheets, read_sizes
from omnisurv.data.readers.tiling import SUFFIXES, Tiling, decode_slides
from omnisurv.data.sources import Names, Source
from omnisurv.data.store import Entry, Unit
from omnisurv.errors import DataError, InputError

Kind = Literal["diagnostic", "frozen", "any"]
"""``diagnostic``: FFPE (DX); ``frozen``: top, middle and bottom sections (TS, MS, BS)."""

_SLIDE = re.compile(
    r"\.(?:" + "|".join(suffix[1:] for suffix in SUFFIXES) + r")$", flags=re.IGNORECASE
)
_NONE = re.compile(r"(?!)")
_SECTION = re.compile(
    r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}-\d{2}[A-Z]?-\d{2}[A-Z]?-(DX|TS|MS|BS)", flags=re.IGNORECASE
)


class SlideFiles(Source):
    """A folder with a file for each slide.

    Whose a slide is says the sample sheet, or its name by the spec's rule for patients.
    """

    sample_sheet: Names | None = None
    metadata: Names | None = None
    sample_types: tuple[str, ...] | None = None


class SlidesSource(SlideFiles):
    """A folder of slides, as the GDC gives them (a folder a file) or flat."""

    format: Literal["slides"]
    assume_mpp: Annotated[float, Field(gt=0)] | None = None
    """µm/px of the slides in this folder that state none; goes before the option."""


def read_slides(source: SlidesSource, context: ReadContext, kind: Kind, tiling: Tiling) -> Images:
    """Return the best tiles of each patient, as uint8 (k, tile, tile, 3), best first.

    Raises:
        InputError: OpenSlide or scikit-image is not installed.
        DataError: there is no slide of that kind, or none can be used.
    """
    _require_packages()
    folder = context.path(source.path)
    files = list_files(folder, context, _SLIDE, _NONE)
    if not files:
        raise DataError(f"{folder} holds no slide ({', '.join(SUFFIXES)})")
    # Of the source it takes the names of sheets alone, which all GDC sources have.
    sheet = read_sheets(source, folder, context)
    samples = choose_slides(files, sheet, source, context, kind)
    promised = read_sizes(folder, context.root)
    for file in files:
        for described in look_up(sheet, file):
            if described.size is not None:
                promised[file.name] = described.size
    units = [
        _unit(patient, [files[sample.position] for sample in several], promised)
        for patient, several in sorted(samples.items())
    ]
    tiling = replace(tiling, assume_mpp=source.assume_mpp or tiling.assume_mpp)
    entries = context.decode(units, decode_slides, asdict(tiling))
    _note_gaps(entries, tiling, context)
    return Images(entries, "rgb")


def choose_slides(
    files: list[Path], sheet: Sheet, source: SlideFiles, context: ReadContext, kind: Kind
) -> dict[str, list[Sample]]:
    """Return the files to read of each patient; the audit says why others are not.

    Raises:
        DataError: nothing says whose they are, or none is of the kind or sample type.
    """
    slides = _of_kind(_whose(files, sheet, source, context), kind, context, source)
    return keep_types(slides, source.sample_types, context, source.path)


def kind_of(name: str) -> Kind | None:
    """Return what a slide's name says of its section; None if it says nothing.

    ``TCGA-02-0001-01Z-00-DX1`` is diagnostic. The ending tells nothing of the tissue, which may
    be normal; the sample type does.
    """
    found = _SECTION.search(name)
    if found is None:
        return None
    return "diagnostic" if found[1].upper() == "DX" else "frozen"


def _require_packages() -> None:
    try:
        for package in ("openslide", "skimage"):
            import_module(package)
    except (ImportError, OSError) as error:
        said = " ".join(str(error).split()).split(". ")[0]
        raise InputError(
            f"slides need OpenSlide and scikit-image ({said}): pip install 'omnisurv[wsi]'"
        ) from None


def _unit(patient: str, slides: list[Path], promised: dict[str, int]) -> Unit:
    kinds = {kind_of(slide.name) for slide in slides}
    told = {
        "kind": kinds.pop() if len(kinds) == 1 else "mixed",
        "bytes": {slide.name: promised[slide.name] for slide in slides if slide.name in promised},
    }
    return Unit(patient, tuple(part for slide in slides for part in parts_of(slide)), told)


def parts_of(slide: Path) -> list[Path]:
    """Return the files a slide consists of; MIRAX keeps its pixels in a folder beside."""
    beside = slide.with_suffix("")
    if slide.suffix.lower() != ".mrxs" or not beside.is_dir():
        return [slide]
    return [slide, *sorted(path for path in beside.iterdir() if path.is_file())]


def _whose(
    files: list[Path], sheet: Sheet, source: SlideFiles, context: ReadContext
) -> dict[str, list[Sample]]:
    """Return the slides of each patient, in the order of their names."""
    folder = context.path(source.path)
    slides: dict[str, list[Sample]] = {}
    seen: set[str] = set()
    strange: list[str] = []
    for position, path in sorted(enumerate(files), key=lambda pair: pair[1].name):
        name = str(Path(source.path) / path.relative_to(folder))
        if path.name in seen:
            context.note("dropped", "a slide of this name was read already", file=name)
            continue
        seen.add(path.name)
        described = look_up(sheet, path) or named_in(path.name) or _as_named(path, context)
        if not described:
            strange.append(path.name)
            context.note("dropped", "neither sheet nor name says whose it is", file=name)
            continue
        found = pick_sample(described, name, context, source)
        if found is not None:
            slides.setdefault(found[0], []).append(replace(found[1], position=position))
    if not slides:
        raise DataError(
            f"nothing says whose the slides of {folder} are ({some(strange or sorted(seen), 1)}); "
            "say `sample_sheet: gdc_sample_sheet.tsv`, or how names become patients: "
            "`patients: {id: regex, pattern: …}`"
        )
    return slides


def _as_named(path: Path, context: ReadContext) -> list[Described]:
    """Return what a name says by the spec's rule alone."""
    if context.patients.patient(path.stem) is None:
        return []
    return [Described(path.stem, "", "", None, "")]


def _of_kind(
    slides: dict[str, list[Sample]], kind: Kind, context: ReadContext, source: SlideFiles
) -> dict[str, list[Sample]]:
    """Return the slides of the wanted kind; names that tell none pass."""
    kept: dict[str, list[Sample]] = {}
    found: Counter[str] = Counter()
    for patient, several in slides.items():
        for slide in several:
            section = kind_of(Path(slide.file).name)
            if kind == "any" or section in (None, kind):
                kept.setdefault(patient, []).append(slide)
                continue
            found[str(section)] += 1
            context.note(
                "dropped",
                f"a {section} slide, `slides: {kind}` are read",
                file=slide.file,
                patient=patient,
                sample=slide.name,
            )
    if not kept:
        ((other, count),) = found.items()
        raise DataError(
            f"{source.path}: no slide is {kind}, all {count} are {other}; say `slides: {other}`"
        )
    return kept


def _note_gaps(entries: list[Entry], tiling: Tiling, context: ReadContext) -> None:
    """Write to the audit what could not be had, or had to be assumed."""
    left_out, assumed, few = [], [], []
    for entry in entries:
        meta = entry.meta
        for slide, reason in meta["left_out"].items():
            left_out.append(slide)
            context.note("dropped", f"left out: {reason}", file=slide, patient=entry.patient)
        assumed += [
            s for s, said in zip(meta["slides"], meta["stated_mpp"], strict=True) if not said
        ]
        if len(meta["scores"]) < tiling.tiles:
            few.append(f"{entry.patient} {len(meta['scores'])}")
    for which, reason in (
        (left_out, "slides are left out of patients who have others"),
        (assumed, f"slides state no µm/px, {tiling.assume_mpp} is assumed"),
        (few, f"patients have fewer than {tiling.tiles} tiles of tissue"),
    ):
        if which:
            context.note("warning", f"{len(which)} {reason}: {some(which, 3)}")
