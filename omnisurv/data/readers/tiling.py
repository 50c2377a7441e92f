"""The best tiles of a patient's slides, at one physical size whatever the scanner."""

import math
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from omnisurv.data.readers.pyramid import Grid, read_overview
from omnisurv.data.readers.tissue import (
    SHARP,
    Best,
    Pixels,
    Tile,
    draw_cells,
    find_cells,
    find_tissue,
    sharpness,
    stained_share,
)
from omnisurv.data.store import Decoded, Unit, fingerprint
from omnisurv.errors import DataError

if TYPE_CHECKING:
    from openslide import OpenSlide

SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs")
OVERVIEW = 8.0
"""µm per pixel of the overview on which tissue is looked for."""
PLAUSIBLE = (0.05, 10.0)
"""µm/px of microscopes; the 72 dpi that image writers fill in are 353."""
COARSE = 1.25
"""Slides coarser than this many wanted pixels are refused: detail cannot be made up."""
THUMBNAIL = 256


@dataclass(frozen=True)
class Tiling:
    """Which tiles to take of a slide.

    Attributes:
        tiles: how many of a patient, at most.
        tile: side in pixels.
        mpp: µm per pixel.
        candidates: how many of a slide are looked at; more are drawn from at random.
        assume_mpp: µm per pixel of slides that state none; None refuses them.
        seed: of that draw, together with the content of the slide.
    """

    tiles: int
    tile: int
    mpp: float
    candidates: int
    assume_mpp: float | None
    seed: int


class Tiled(NamedTuple):
    """What one slide gives: its tiles, best first, and what is known of it."""

    file: Path
    tiles: list[Tile]
    scanned_mpp: float
    stated: bool
    size: tuple[int, int]
    candidates: int
    overview: Pixels


def decode_slides(unit: Unit, options: Mapping[str, Any]) -> Decoded:
    """Return the best tiles (k, tile, tile, 3) uint8 of all slides of a patient, best first.

    ``meta``: ``mpp`` of the tiles, ``scores`` (share of stained pixels), ``positions`` (corners in
    pixels of level 0), ``slides`` (names), ``slide_of_tile``; of each slide ``sizes`` (width,
    height of level 0), ``scanned_mpp``, ``stated_mpp`` (else assumed), ``candidates`` (tiles looked
    at); ``kind`` (diagnostic, frozen, mixed), ``left_out`` (slide: why) and ``thumbnail`` (PNG in
    base64) of the slide of the best tile.

    Raises:
        DataError: no slide of the patient can be used.
    """
    tiling = Tiling(**options)
    tiled: list[Tiled] = []
    left_out: dict[str, str] = {}
    for file in (file for file in unit.files if file.suffix.lower() in SUFFIXES):
        try:
            _require_whole(file, unit.told.get("bytes", {}).get(file.name))
            tiled.append(tile_slide(file, tiling))
        except DataError as error:
            left_out[file.name] = str(error)
    if not tiled:
        raise DataError(next(iter(left_out.values())))
    array, meta = _choose(tiled, tiling)
    return Decoded(array, {**meta, "kind": unit.told.get("kind"), "left_out": left_out})


def _require_whole(file: Path, promised: int | None) -> None:
    actual = file.stat().st_size
    if not actual:
        raise DataError(f"{file} is empty (0 bytes); download it again")
    if promised is not None and promised != actual:
        raise DataError(
            f"{file} has {actual} bytes, the manifest says {promised}; download it again"
        )


def _choose(tiled: list[Tiled], tiling: Tiling) -> Decoded:
    """Let the tiles of all slides compete; equal ones go by slide and position."""
    all_tiles = [(number, tile) for number, slide in enumerate(tiled) for tile in slide.tiles]
    # Sorting is stable: slides and their tiles of one score stay in order.
    best = sorted(all_tiles, key=lambda pair: pair[1].score, reverse=True)[: tiling.tiles]
    meta = {
        "mpp": tiling.mpp,
        "scores": [tile.score for _, tile in best],
        "positions": [list(tile.corner) for _, tile in best],
        "slides": [slide.file.name for slide in tiled],
        "slide_of_tile": [number for number, _ in best],
        "sizes": [list(slide.size) for slide in tiled],
        "scanned_mpp": [slide.scanned_mpp for slide in tiled],
        "stated_mpp": [slide.stated for slide in tiled],
        "candidates": [slide.candidates for slide in tiled],
        "thumbnail": _png(tiled[best[0][0]].overview),
    }
    return Decoded(np.stack([tile.pixels for _, tile in best]), meta)


def _png(overview: Pixels) -> str:
    from PIL import Image

    picture = Image.fromarray(overview)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = BytesIO()
    picture.save(stream, format="PNG")
    return b64encode(stream.getvalue()).decode()


def tile_slide(file: Path, tiling: Tiling) -> Tiled:
    """Return the best tiles of one slide; at no time is more than a part of it in memory.

    Raises:
        DataError: the file is damaged, says no µm/px, or shows no sharp tissue.
    """
    with _opened(file) as slide:
        mpp, stated = _scale(slide, file, tiling)
        grid = Grid.on(slide, tiling.tile, tiling.mpp / mpp)
        if not grid.columns or not grid.rows:
            raise DataError(
                f"{file} is {slide.dimensions[0]}×{slide.dimensions[1]} pixels, smaller than one "
                f"tile of {tiling.tile * tiling.mpp:g} µm; say a smaller `tile`"
            )
        # A tile is at least eight pixels of the overview, or half of it is no measure.
        coarse = max(min(OVERVIEW, tiling.tile * tiling.mpp / 8) / mpp, 1.0)
        overview = read_overview(slide, coarse)
        cells = find_cells(find_tissue(overview), grid.side / coarse, grid.columns, grid.rows)
        if not len(cells.rows):
            raise DataError(f"{file} shows no tissue: no tile is half stained and free of ink")
        generator = np.random.default_rng([tiling.seed, int(fingerprint(file)[:16], 16)])
        cells = draw_cells(cells, tiling.candidates, generator)
        corners = [grid.corner(x, y) for x, y in zip(*cells, strict=True)]
        tiles = best_tiles(slide, grid, corners, tiling.tiles)
        if not tiles:
            raise DataError(
                f"{file} is blurred: none of {len(corners)} tiles of tissue is sharp; scan it again"
            )
        return Tiled(file, tiles, mpp, stated, slide.dimensions, len(corners), overview)


def best_tiles(
    slide: "OpenSlide", grid: Grid, corners: list[tuple[int, int]], most: int
) -> list[Tile]:
    """Return the sharp tiles with the most stain, best first; one is read at a time."""
    best = Best(most)
    for corner in corners:
        pixels = grid.read(slide, corner)
        score = stained_share(pixels)
        if best.admits(score) and sharpness(pixels) >= SHARP:
            best.keep(Tile(score, corner, pixels))
    return list(best)


@contextmanager
def _opened(file: Path) -> "Iterator[OpenSlide]":
    """Open a slide; whatever OpenSlide says of it then becomes a DataError that names it."""
    import openslide

    try:
        with openslide.OpenSlide(file) as slide:
            yield slide
    except openslide.OpenSlideUnsupportedFormatError:
        raise DataError(f"{file} {_what_else(file)}") from None
    except openslide.OpenSlideError as error:
        said = " ".join(str(error).split())
        raise DataError(
            f"{file} cannot be read to its end ({said}); it is cut short or damaged, download it "
            "again"
        ) from None


def _what_else(file: Path) -> str:
    """Say what a file is that OpenSlide does not read."""
    with file.open("rb") as stream:
        start = stream.read(4)
    if start[:3] == b"\xff\xd8\xff" or start == b"\x89PNG":
        return "is a plain JPEG or PNG picture under the name of a slide; get the slide itself"
    if start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return (
            "is a TIFF that OpenSlide does not read: cut short (download it again), or without "
            "tiles (convert it to a pyramidal tiled TIFF)"
        )
    return "is no slide that OpenSlide reads; download it again"


def _scale(slide: "OpenSlide", file: Path, tiling: Tiling) -> tuple[float, bool]:
    """Return µm per pixel of level 0 and whether the slide states it.

    The nominal magnification is not enough: scanners' 40x differ by a tenth and more.
    """
    stated = _stated(slide.properties)
    mpp = tiling.assume_mpp if stated is None else stated
    if mpp is None:
        power = slide.properties.get("openslide.objective-power")
        usual = f"{10 / float(power):g}" if power else "0.25"
        only = f", only a nominal {power}x objective" if power else ""
        raise DataError(
            f"{file} states no µm/px{only}; if you know the scanner's, say `assume_mpp: {usual}`"
        )
    if mpp > COARSE * tiling.mpp:
        raise DataError(
            f"{file} was scanned at {mpp:g} µm/px, coarser than `mpp: {tiling.mpp:g}`; say a "
            "larger `mpp` or leave it out"
        )
    return mpp, stated is not None


def _stated(properties: Mapping[str, str]) -> float | None:
    """Return the µm/px that a slide states itself or by its TIFF resolution; None if neither."""
    axes = [properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
    mpp = [float(value) for value in axes if value]
    unit = {"centimeter": 1e4, "inch": 25_400.0}.get(properties.get("tiff.ResolutionUnit", ""))
    dots = float(properties.get("tiff.XResolution") or 0)
    if not mpp and unit and dots > 0:
        mpp = [unit / dots]
    mean = sum(mpp) / len(mpp) if mpp else math.nan
    return mean if PLAUSIBLE[0] <= mean <= PLAUSIBLE[1] else None
