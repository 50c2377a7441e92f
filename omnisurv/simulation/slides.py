"""Slides of a glioma in haematoxylin and eosin, and SVS files as an Aperio scanner writes them.

Lengths are pixels of level 0 (0.499 µm) unless said otherwise. All that is drawn comes from the
generator that is passed in.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter1d
from scipy.special import expit

Field = NDArray[np.float32]
Picture = NDArray[np.uint8]

HEIGHT, WIDTH = 1024, 1280
MPP = 0.499
MAGNIFICATION = 20
TILE = 256
DOWNSAMPLES = (1, 4)
COARSE = 16
"""Side of a cell of the grid on which all that is smooth is drawn."""
QUALITY = 75

# Optical density of one unit of stain in red, green and blue.
HAEMATOXYLIN = (0.75, 1.0, 0.36)
EOSIN = (0.10, 0.80, 0.30)
GLASS = 244.0
INKS = ((25, 60, 190), (10, 130, 70))


class Trouble(NamedTuple):
    """What happened to a slide: felt pen on the glass, a part out of focus, frozen section."""

    pen: bool = False
    blurred: bool = False
    frozen: bool = False


def render(
    look: Mapping[str, float], rng: np.random.Generator, trouble: Trouble | None = None
) -> Picture:
    """Draw a slide with these traits, uint8 (HEIGHT, WIDTH, 3)."""
    happened = trouble or Trouble()
    tissue, vital = _tissue(look, rng, happened.frozen)
    nuclei = _nuclei(look, tissue, vital, rng)
    grain = rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32)
    felt = uniform_filter1d(uniform_filter1d(grain, 3, axis=0), 7, axis=1)
    blue = look["basophilia"]
    ground = tissue * (1.0 + 0.15 * _enlarge(_noise(rng, 0.7)) + 1.3 * felt).clip(0.0)
    # Dead tissue has lost its nuclei and takes up more eosin.
    haematoxylin = ground * (0.06 + 0.18 * blue) * vital + nuclei * (1.0 + 0.1 * grain)
    eosin = ground * ((0.42 - 0.26 * blue) + 0.22 * (1.0 - vital))
    densities = (h * haematoxylin + e * eosin for h, e in zip(HAEMATOXYLIN, EOSIN, strict=True))
    channels = np.stack([GLASS * np.exp(-density) for density in densities])
    if happened.blurred:
        _blur(channels, rng)
    if happened.pen:
        _draw_pen(channels, rng)
    return np.stack(list(channels.astype(np.uint8)), axis=-1)


def write_svs(slide: Picture, path: Path, mpp: float | None = MPP) -> None:
    """Write a pyramid of JPEG tiles that OpenSlide opens as ``aperio``.

    Args:
        slide: level 0, uint8 (y, x, 3); its sides are multiples of the last downsample.
        path: the file to write.
        mpp: micrometres per pixel in its description; None says nothing, as old slides do.
    """
    import tifffile

    with tifffile.TiffWriter(path) as file:
        for downsample in DOWNSAMPLES:
            file.write(
                _shrink(slide, downsample),
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": QUALITY},
                description=_description(slide, downsample, mpp),
                metadata=None,
                software=False,
            )


def _description(slide: Picture, downsample: int, mpp: float | None) -> str:
    height, width = slide.shape[:2]
    level = "" if downsample == 1 else f" -> {width // downsample}x{height // downsample}"
    told = "" if mpp is None else f"|AppMag = {MAGNIFICATION}|MPP = {mpp:.4f}"
    head = "Aperio Image Library v11.2.1 \r\n"
    return f"{head}{width}x{height} ({TILE}x{TILE}){level} JPEG/RGB Q={QUALITY}{told}"


def _shrink(slide: Picture, downsample: int) -> Picture:
    """Return the means of squares; sums of two bytes hold those of sixteen by sixteen pixels."""
    if downsample == 1:
        return slide
    height, width = (side // downsample for side in slide.shape[:2])
    rows = slide.reshape(height, downsample, -1).sum(axis=1, dtype=np.uint16)
    sums = rows.reshape(height, width, downsample, 3).sum(axis=2, dtype=np.uint16)
    return (sums // downsample**2).astype(np.uint8)


@cache
def _steps(length: int) -> Field:
    """Return the matrix that enlarges an axis from cells to pixels, linearly."""
    cells = length // COARSE
    at = ((np.arange(length) + 0.5) / COARSE - 0.5).clip(0, cells - 1)
    return np.maximum(1.0 - abs(at[:, None] - np.arange(cells)), 0.0).astype(np.float32)


def _enlarge(coarse: Field) -> Field:
    """Return a field of cells at every pixel."""
    return np.asarray(_steps(HEIGHT) @ coarse @ _steps(WIDTH).T, dtype=np.float32)


def _noise(rng: np.random.Generator, cells: float) -> Field:
    """Return a smooth random field of cells with mean 0 and standard deviation 1."""
    drawn = rng.standard_normal((HEIGHT // COARSE, WIDTH // COARSE), dtype=np.float32)
    field = gaussian_filter(drawn, cells, mode="wrap")
    return (field - field.mean()) / field.std()


def _tissue(
    look: Mapping[str, float], rng: np.random.Generator, frozen: bool
) -> tuple[Field, Field]:
    """Return how much of each pixel is tissue, and how much of that is alive."""
    down = np.linspace(-1.0, 1.0, HEIGHT // COARSE, dtype=np.float32)[:, None]
    right = np.linspace(-1.0, 1.0, WIDTH // COARSE, dtype=np.float32)
    room = 1.6 * np.maximum(abs(down), abs(right)) ** 4
    piece = _noise(rng, 9.0) + 0.5 * _noise(rng, 3.5) + 0.12 * _noise(rng, 1.0) - 2.0 * room
    cover = rng.uniform(0.5, 0.7)
    edge = float(np.quantile(piece, 1.0 - cover))
    tissue = expit((_enlarge(piece) - edge) / 0.025)
    if frozen:  # ice crystals leave holes
        tissue *= 1.0 - 0.9 * expit((_enlarge(_noise(rng, 0.8)) - 1.0) / 0.06)
    # The dead share is of the tissue, wherever that lies.
    spots = _noise(rng, 5.0)
    inside = spots[piece > edge]
    alive_below = float(np.quantile(inside, 1.0 - look["dead_tissue"]))
    dead = expit((spots - alive_below) / 0.12)
    return tissue, 1.0 - _enlarge(dead)


def _nuclei(
    look: Mapping[str, float], tissue: Field, vital: Field, rng: np.random.Generator
) -> Field:
    """Stamp elliptic nuclei on a shaken grid; return their haematoxylin."""
    per_pixel = look["cellularity"] * (MPP / 1000.0) ** 2
    most = 2.0  # the grid has room for twice the mean density
    pitch = (most * per_pixel) ** -0.5
    rows, columns = np.mgrid[0.0:HEIGHT:pitch, 0.0:WIDTH:pitch].reshape(2, -1)
    shaken = rng.uniform(-0.42, 0.42, size=(2, len(rows))) * pitch
    y = (rows + shaken[0]).clip(0, HEIGHT - 1)
    x = (columns + shaken[1]).clip(0, WIDTH - 1)
    at = y.astype(int), x.astype(int)
    # Cells crowd in places, and around what is dead: palisades.
    crowding = 1.0 + 0.35 * _noise(rng, 2.5)[at[0] // COARSE, at[1] // COARSE]
    rim = 4.0 * vital[at] * (1.0 - vital[at])
    density = tissue[at] ** 4 * vital[at] ** 2 * crowding.clip(0.2) * (1.0 + 1.2 * rim) / most
    kept = rng.random(len(y)) < density
    radius = look["nuclear_radius"] / MPP * np.exp(rng.normal(0.0, 0.16, size=kept.sum()))
    return _stamp(y[kept], x[kept], radius, 1.25 + 0.3 * look["basophilia"], rng)


def _stamp(
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    radius: NDArray[np.float64],
    stain: float,
    rng: np.random.Generator,
) -> Field:
    """Return a picture of ellipses with soft edges; where two overlap, the darker one counts."""
    long = radius * np.exp(rng.uniform(0.0, 0.3, size=len(y)))
    short = radius**2 / long
    turn = rng.uniform(0.0, np.pi, size=len(y))
    depth = stain * rng.uniform(0.65, 1.2, size=len(y))
    canvas = np.zeros(HEIGHT * WIDTH, dtype=np.float32)
    for group in np.array_split(np.argsort(long), 4):  # small ones need a small window only
        if not len(group):
            continue
        reach = int(np.ceil(long[group].max())) + 2
        window = np.arange(-reach, reach + 1, dtype=np.float32)
        row = np.floor(y[group]).astype(int)[:, None, None] + window.astype(int)[:, None]
        column = np.floor(x[group]).astype(int)[:, None, None] + window.astype(int)
        cos, sin = (f(turn[group]).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
        along = (window[:, None] * sin + window * cos) / long[group, None, None]
        across = (window[:, None] * cos - window * sin) / short[group, None, None]
        inward = 1.0 - np.sqrt(along**2 + across**2)
        dark = depth[group, None, None] * (inward * 5.0 + 0.3).clip(0.0, 1.0)
        there = (dark > 0.0) & (row >= 0) & (row < HEIGHT) & (column >= 0) & (column < WIDTH)
        np.maximum.at(canvas, (row * WIDTH + column)[there], dark[there].astype(np.float32))
    return canvas.reshape(HEIGHT, WIDTH)


def _blur(channels: Field, rng: np.random.Generator) -> None:
    """Put a part of the slide out of focus."""
    size = 448
    top, left = rng.integers(HEIGHT - size), rng.integers(WIDTH - size)
    part = channels[:, top : top + size, left : left + size]
    part[...] = gaussian_filter(part, (0.0, 6.0, 6.0), mode="nearest")


def _draw_pen(channels: Field, rng: np.random.Generator) -> None:
    """Draw a bent stroke of saturated ink from somewhere on the left to somewhere on the right."""
    low, high = [(0.1, 0.1), (0.0, 0.3), (0.1, 0.7)], [(0.9, 0.3), (1.0, 0.7), (0.9, 0.9)]
    start, bend, end = rng.uniform(low, high) * (HEIGHT, WIDTH) / COARSE
    along = np.linspace(0.0, 1.0, 60)[:, None]
    curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * bend + along**2 * end
    cells = np.moveaxis(np.indices((HEIGHT // COARSE, WIDTH // COARSE)), 0, -1)
    distance = np.linalg.norm(cells[:, :, None] - curve, axis=-1).min(axis=-1)
    ink = expit((rng.uniform(1.0, 1.8) - _enlarge(distance.astype(np.float32))) / 0.08)
    colour = np.array(INKS[rng.integers(len(INKS))], dtype=np.float32)[:, None, None]
    # Ink is see-through: what lies under it still shows a little.
    channels *= 1.0 - ink * (1.0 - colour / GLASS)
