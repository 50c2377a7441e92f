"""Tiling of a slide: tiles per second beside a plain loop, and peak memory.

The slide is written here, tile by tile: an Aperio-like pyramid at 40x (levels 1, 4 and 16, JPEG)
of 2.5 GB of pixels. `plain` is the loop people write: OpenSlide's read_region of each candidate in
the order in which they were drawn, resized, scored in PIL's HSV, all kept until the end.
`omnisurv` looks at the same candidates in the order in which they lie on the slide, scores them in
whole numbers, and keeps only the best, which it also checks for being sharp. Both run on one core,
timed in seconds of the processor, rounds interleaved in one process; peak memory is that of a
process of its own that does all of the work: scale, overview, tissue, candidates, tiles.

    python benchmarks/wsi_tiling.py --json wsi_tiling.json
    python benchmarks/wsi_tiling.py --slide TCGA-02-0001-01Z-00-DX1.svs
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from omnisurv.data.readers.pyramid import Grid
from omnisurv.data.readers.tiling import Tiling, best_tiles, decode_slides, tile_slide
from omnisurv.data.store import Unit

Corner = tuple[int, int]

SIDE = 240
"""Of a tile of the file, as in TCGA's."""
ROWS, COLUMNS = 112, 128
"""Tiles of the file at level 0, multiples of 16: 26,880 × 30,720 pixels, 2.5 GB."""
POOL = 48
"""Different tiles of tissue; the slide repeats them."""
TILING = Tiling(tiles=10, tile=256, mpp=0.5, candidates=1000, assume_mpp=None, seed=0)


class Work(NamedTuple):
    """What is to be tiled: the same for both."""

    file: Path
    grid: Grid
    corners: list[Corner]
    """Row by row."""


def write_slide(path: Path) -> None:
    """Write the slide."""
    import tifffile
    from imagecodecs import jpeg_encode

    rng = np.random.default_rng(0)
    pool = np.stack([np.full((SIDE, SIDE, 3), 244, np.uint8), *(_tissue(rng) for _ in range(POOL))])
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : COLUMNS * 1j]
    layout = np.where(x**2 + y**2 < 0.7, rng.integers(1, POOL + 1, (ROWS, COLUMNS)), 0)
    size = (ROWS * SIDE, COLUMNS * SIDE)
    text = f"Aperio Image Library v10.0.51\n{size[1]}x{size[0]} ({SIDE}x{SIDE}) JPEG/RGB Q=75"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for step in (1, 4, 16):
            tiles = _level(pool, layout, step)
            file.write(
                (jpeg_encode(tile, level=75) for tile in tiles),
                shape=(size[0] // step, size[1] // step, 3),
                dtype=np.uint8,
                tile=(SIDE, SIDE),
                photometric="rgb",
                compression="jpeg",
                description=f"{text}|AppMag = 40|MPP = 0.2520",
                metadata=None,
                software=False,
            )


def _tissue(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return pink ground with violet nuclei of 8 µm, and grain as of a camera."""
    nuclei = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 8, mode="wrap")
    inside = np.clip((nuclei / nuclei.std() - rng.uniform(0.8, 1.8)) * 4, 0, 1)[..., None]
    ground = np.array([222.0, 165, 200]) + rng.normal(0, 15, size=3)
    picture = ground * (1 - inside) + np.array([85.0, 45, 125]) * inside
    picture += gaussian_filter(rng.normal(0, 25, size=picture.shape), (0.8, 0.8, 0))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _level(pool: NDArray[np.uint8], layout: NDArray[Any], step: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles of a level of the pyramid, row by row."""
    small = pool.reshape(len(pool), SIDE // step, step, SIDE // step, step, 3).mean(axis=(2, 4))
    small = small.astype(np.uint8)
    height, width = (-(-length // step) * step for length in layout.shape)
    padded = np.zeros((height, width), int)
    padded[: layout.shape[0], : layout.shape[1]] = layout
    for top in range(0, height, step):
        for left in range(0, width, step):
            chosen = small[padded[top : top + step, left : left + step]]
            yield np.ascontiguousarray(chosen.transpose(0, 2, 1, 3, 4).reshape(SIDE, SIDE, 3))


def prepare(file: Path, tiling: Tiling) -> Work:
    """Find the candidates as decoding does."""
    every = tile_slide(file, replace(tiling, tiles=tiling.candidates))
    with openslide.OpenSlide(file) as slide:
        grid = Grid.on(slide, tiling.tile, tiling.mpp / every.scanned_mpp)
    corners = sorted((tile.corner for tile in every.tiles), key=lambda corner: corner[::-1])
    return Work(file, grid, corners)


def plain(work: Work) -> list[Corner]:
    """Tile with a plain loop; return the corners of the best."""
    grid = work.grid
    side = round(grid.side / grid.downsample)
    drawn = np.random.default_rng(0).permutation(len(work.corners))
    with openslide.OpenSlide(work.file) as slide:
        kept = []
        for number in drawn:
            corner = work.corners[number]
            region = slide.read_region(corner, grid.level, (side, side)).convert("RGB")
            region = region.resize((grid.tile, grid.tile), Image.Resampling.BOX)
            hsv = np.asarray(region.convert("HSV"))
            score = int(((hsv[..., 1] > 130) & (hsv[..., 2] < 170)).sum())
            kept.append((score, corner, np.asarray(region)))
    kept.sort(key=lambda item: item[0], reverse=True)
    return [corner for _, corner, _ in kept[: TILING.tiles]]


def ours(work: Work) -> list[Corner]:
    """Tile with omnisurv; return the corners of the best."""
    with openslide.OpenSlide(work.file) as slide:
        best = best_tiles(slide, work.grid, work.corners, TILING.tiles)
    return [tile.corner for tile in best]


def measure(work: Work, rounds: int) -> dict[str, float]:
    """Return tiles per second of both, their ratio within a round, and how many tiles agree."""
    loops: dict[str, Callable[[Work], list[Corner]]] = {"plain": plain, "omnisurv": ours}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    chosen: dict[str, list[Corner]] = {}
    for index in range(rounds + 1):
        for name, loop in loops.items():
            start = time.process_time()
            chosen[name] = loop(work)
            if index:  # the first fills the file cache
                seconds[name].append(time.process_time() - start)
    pairs = zip(seconds["plain"], seconds["omnisurv"], strict=True)
    return {
        "candidates": len(work.corners),
        **{
            f"{name}_per_s": len(work.corners) / statistics.median(s) for name, s in seconds.items()
        },
        "speed_ratio": statistics.median(a / b for a, b in pairs),
        "same_tiles": len(set(chosen["plain"]) & set(chosen["omnisurv"])),
    }


def decode_alone(file: Path, tiling: Tiling) -> dict[str, float]:
    """Return seconds and peak MiB of a fresh process that decodes the slide."""
    assumed = [] if tiling.assume_mpp is None else ["--assume-mpp", str(tiling.assume_mpp)]
    told = subprocess.run(
        [sys.executable, __file__, "--probe", str(file), *assumed],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(told.stdout)


def probe(file: Path, tiling: Tiling) -> dict[str, float]:
    """Decode here; return seconds and peak MiB."""
    start = time.process_time()
    decoded = decode_slides(Unit("patient", (file,)), asdict(tiling))
    return {
        "decode_s": time.process_time() - start,
        "tiles": len(decoded.array),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run(file: Path, tiling: Tiling, rounds: int) -> dict[str, object]:
    """Measure one slide."""
    # Memory first: a child's peak counts from that of the process that started it.
    alone = decode_alone(file, tiling)
    with openslide.OpenSlide(file) as slide:
        gigabytes = slide.dimensions[0] * slide.dimensions[1] * 3 / 1e9
    size = {"pixels_gb": gigabytes, "file_gb": file.stat().st_size / 1e9}
    return {"slide": file.name, **size, **measure(prepare(file, tiling), rounds), **alone}


def show(row: dict[str, Any]) -> None:
    print(
        f"{row['slide']}: {row['pixels_gb']:.2f} GB of pixels, file {row['file_gb']:.2f} GB, "
        f"{row['candidates']} candidates\n"
        f"  plain loop {row['plain_per_s']:.0f} tiles/s, omnisurv {row['omnisurv_per_s']:.0f} "
        f"tiles/s: {row['speed_ratio']:.2f} times as fast; {row['same_tiles']} of "
        f"{row['tiles']} chosen tiles the same\n"
        f"  all of decoding {row['decode_s']:.1f} s, peak {row['peak_mib']:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--slide", type=Path, help="measure this slide instead")
    parser.add_argument("--assume-mpp", type=float, help="µm/px, if the slide states none")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each loop")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--probe", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    tiling = replace(TILING, assume_mpp=given.assume_mpp)
    if given.probe:
        print(json.dumps(probe(given.probe, tiling)))
        return
    with tempfile.TemporaryDirectory() as folder:
        slide = given.slide
        if slide is None:
            slide = Path(folder) / "synthetic.svs"
            if shutil.disk_usage(folder).free < 1e9:
                parser.error(f"{folder} has less than 1 GB free; set TMPDIR or say --slide")
            write_slide(slide)
        row = run(slide, tiling, given.rounds)
    show(row)
    if given.json:
        given.json.write_text(json.dumps({"openslide": openslide.__library_version__, **row}))


if __name__ == "__main__":
    main()
