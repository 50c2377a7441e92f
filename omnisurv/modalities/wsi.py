"""Whole-slide images: the tiles of each patient's slides that show the most stain."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from omnisurv.config import Settings
from omnisurv.data.images import FilledImages, Images
from omnisurv.data.readers.slides import Kind, SlidesSource
from omnisurv.data.readers.stored import StoredSource
from omnisurv.data.readers.tiling import Tiling
from omnisurv.data.readers.tissue import stained_share
from omnisurv.data.sources import Source
from omnisurv.data.store import Entry
from omnisurv.files import atomic
from omnisurv.modality import Modality, State, Tokeniser
from omnisurv.pictures import PictureTokeniser
from omnisurv.registry import modalities

if TYPE_CHECKING:
    from PIL.Image import Image

    from omnisurv.data.readers import ReadContext

CHANNELS = ("red", "green", "blue")
WARNING = "IMPUTED - SYNTHETIC, NOT TISSUE"
SHOWN, DETAIL = 96, 24
"""Side at which an imputed tile is drawn, and of the squares of one colour it is drawn with:
enough for its colours, too few to look like cells."""


class WsiOptions(Settings):
    """Options of a whole-slide modality."""

    tiles: Annotated[int, Field(ge=1)] = 10
    """Tiles of a patient, from all slides together (impuTMAE: 10)."""
    tile: Annotated[int, Field(ge=1)] = 256
    """Side of a tile in pixels."""
    mpp: Annotated[float, Field(gt=0)] = 0.5
    """µm per pixel of the tiles, whatever the scanner's (20x: 0.5)."""
    patch: Annotated[int, Field(ge=1)] = 16
    """Side of a token in pixels; divides ``tile``."""
    candidates: Annotated[int, Field(ge=1)] = 1000
    """Tiles of tissue that are looked at in a slide; of more, so many are drawn."""
    assume_mpp: Annotated[float, Field(gt=0)] | None = None
    """µm/px of slides that state none; without it they are refused."""
    slides: Kind = "diagnostic"
    """FFPE (DX), frozen sections (TS, MS, BS) or any, by their barcode."""
    seed: int = 0

    @model_validator(mode="after")
    def _patches_fit(self) -> "WsiOptions":
        if self.tile % self.patch:
            near = max(self.tile // self.patch, 1) * self.patch
            raise ValueError(
                f"patch: {self.patch} does not divide tile: {self.tile}; say tile: {near}"
            )
        return self


@modalities.register("wsi")
class Wsi(Modality):
    """Tiles of haematoxylin-eosin slides at one physical size."""

    kind = "wsi"
    summary = "whole-slide images, the most stained tiles in square patches"
    Options = WsiOptions
    formats: ClassVar = {"slides": SlidesSource, "store": StoredSource}
    least: ClassVar = 1
    options: WsiOptions

    def read(self, source: Source, context: "ReadContext") -> Images:
        """Read a folder of slides, or tiles that were cut before."""
        from omnisurv.data.readers import read_slides, read_stored

        if isinstance(source, StoredSource):
            return read_stored(source, context, self.options.model_dump(exclude={"patch"}))
        assert isinstance(source, SlidesSource)
        o = self.options
        tiling = Tiling(o.tiles, o.tile, o.mpp, o.candidates, o.assume_mpp, o.seed)
        return read_slides(source, context, o.slides, tiling)

    def fit(self, train: Images) -> PictureTokeniser:
        """Learn each channel's mean and spread on all tiles of training patients."""
        o = self.options
        counts = np.zeros((3, 256), np.int64)
        for row in range(len(train)):
            for channel, count in enumerate(counts):
                values = train.array(row)[: o.tiles, ..., channel]
                count += np.bincount(values.ravel(), minlength=256)
        levels = np.arange(256)
        total = np.maximum(counts.sum(axis=1), 1)
        center = counts @ levels / total
        variance = counts @ levels**2 / total - center**2
        spread = np.sqrt(np.maximum(variance, 1.0))  # a flat channel stays as it is
        return PictureTokeniser(
            o.tiles, (o.tile, o.tile), o.patch, 3, center, spread, train.uns["scale"]
        )

    def restore(self, state: State) -> PictureTokeniser:
        """Rebuild a fitted tokeniser."""
        return PictureTokeniser.restore(state)

    def embed(self, tokeniser: Tokeniser, dim: int, *, shared: bool) -> nn.Module:
        """Return the map from patches to tokens, always one for all of them.

        Tiles stand in order of stain, not of place: the n-th patch of the n-th tile shows nothing
        in particular, so a map of its own would have nothing to learn. This is the papers'
        convolution with kernel = stride = patch.
        """
        return super().embed(tokeniser, dim, shared=True)

    def predict(self, tokeniser: Tokeniser, dim: int, *, shared: bool) -> nn.Module:
        """Return the map from decoder states to patches, one for all as in ``embed``."""
        return super().predict(tokeniser, dim, shared=True)

    def write(self, filled: FilledImages, folder: Path) -> list[Path]:
        """Write what was imputed as features of its tiles and one marked synthetic picture.

        Measured slides are not written again: the manifest, with a row for each patient, says
        where their tiles come from. Files of imputed patients say so in name and content, so that
        no pixel of them can be taken for tissue.
        """
        manifest, written = [], []
        for row, patient in enumerate(filled.patients):
            files: list[Path] = []
            if filled.imputed[row]:
                stem = f"{patient}_{self.name}_imputed"
                files = [folder / f"{stem}_features.tsv", folder / f"{stem}_synthetic.png"]
                with atomic(files[0]) as path:
                    tile_features(filled, row).to_csv(path, sep="\t", index=False)
                _save_synthetic(filled, row, files[1])
            manifest.append(_manifest_row(filled, row, files))
            written += files
        target = folder / f"{self.name}_manifest.tsv"
        with atomic(target) as path:
            pd.DataFrame(manifest).to_csv(path, sep="\t", index=False)
        return [target, *written]

    @classmethod
    def example(cls, generator: np.random.Generator) -> tuple["Wsi", Images]:
        """Return 24 patients with three small tiles, some of them with fewer."""
        entries = []
        for number in range(24):
            tiles = 1 + number % 3
            stain = generator.normal([170, 110, 150], 30, size=(tiles, 1, 1, 3))
            pixels = stain + generator.normal(0, 25, size=(tiles, 8, 8, 3))
            array = np.clip(pixels, 0, 255).astype(np.uint8)
            entries.append(Entry(f"TCGA-00-{number:04d}", array, _example_meta(array)))
        return cls("wsi", WsiOptions(tiles=3, tile=8, patch=4)), Images(entries, "rgb")


def _example_meta(tiles: NDArray[np.uint8]) -> dict[str, Any]:
    return {
        "mpp": 0.5,
        "scores": [stained_share(tile) for tile in tiles],
        "positions": [[8 * number, 0] for number in range(len(tiles))],
        "slides": ["example.svs"],
        "slide_of_tile": [0] * len(tiles),
    }


def tile_features(filled: FilledImages, row: int) -> pd.DataFrame:
    """Return a row of features for each imputed tile.

    Mean and standard deviation of each channel (0–255), mean optical density of haematoxylin and
    eosin (Ruifrok and Johnston's separation), and the share of stained pixels. An imputed tile is a
    mean over what it may be: it has less texture than tissue, so its deviations and its stained
    share are too low. ``low`` and ``high`` bound the mean at the stated level as if all pixels
    erred together, which is on the wide side; the other features have no interval.
    """
    from skimage.color import rgb2hed

    rows = []
    for number, (tile, half) in enumerate(zip(filled.values[row], filled.half, strict=True)):
        pixels = _as_bytes(tile)
        told: dict[str, Any] = {"patient": filled.patients[row], "tile": number}
        for channel, name in enumerate(CHANNELS):
            mean, reach = float(tile[..., channel].mean()), float(half[..., channel].mean())
            known = np.isfinite(reach)
            told[f"{name}_mean"] = mean
            told[f"{name}_mean_low"] = max(mean - reach, 0.0) if known else np.nan
            told[f"{name}_mean_high"] = min(mean + reach, 255.0) if known else np.nan
            told[f"{name}_sd"] = float(tile[..., channel].std())
        density = rgb2hed(pixels).mean(axis=(0, 1))
        told |= {"haematoxylin_od": density[0], "eosin_od": density[1]}
        told |= {"stained_share": stained_share(pixels)}
        rows.append(told | {"level": filled.level, "imputed_by": f"omnisurv {filled.run}"})
    return pd.DataFrame(rows)


def _as_bytes(tile: NDArray[Any]) -> NDArray[np.uint8]:
    return np.clip(np.rint(tile), 0, 255).astype(np.uint8)


def _manifest_row(filled: FilledImages, row: int, files: list[Path]) -> dict[str, str]:
    patient = filled.patients[row]
    if files:
        names = ", ".join(file.name for file in files)
        return {"patient": patient, "tiles": f"imputed by omnisurv {filled.run}", "files": names}
    entry = filled.images.of(patient) if filled.images is not None else None
    meta: Mapping[str, Any] = entry.meta if entry is not None else {}
    slides = ", ".join(meta.get("slides", []))
    return {"patient": patient, "tiles": "measured, not written again", "files": slides}


def _save_synthetic(filled: FilledImages, row: int, target: Path) -> None:
    """Draw the imputed tiles small, framed and written over; the metadata says what they are."""
    from PIL import Image
    from PIL.Image import Resampling
    from PIL.PngImagePlugin import PngInfo

    tiles = [Image.fromarray(_as_bytes(tile)) for tile in filled.values[row]]
    columns = min(len(tiles), 5)
    cell = SHOWN + 12
    sheet = Image.new(
        "RGB", (max(columns * cell, 260), -(-len(tiles) // columns) * cell + 24), "white"
    )
    for number, tile in enumerate(tiles):
        place = (number % columns * cell + 6, number // columns * cell + 30)
        coarse = tile.resize((DETAIL, DETAIL), Resampling.BOX)
        sheet.paste(coarse.resize((SHOWN, SHOWN), Resampling.NEAREST), place)
    _mark(sheet)
    told = f"imputed by omnisurv {filled.run}: a synthetic mean picture, not tissue"
    info = PngInfo()
    info.add_text("Title", WARNING)
    info.add_text("Description", f"{filled.patients[row]}: {told}")
    info.add_text("Software", "omnisurv")
    with atomic(target) as path:
        sheet.save(path, format="PNG", pnginfo=info)


def _mark(sheet: "Image") -> None:
    """Write over all of a picture that it is synthetic."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(sheet)
    width, height = sheet.size
    for start in range(-height, width, 24):
        draw.line([(start, height), (start + height, 0)], fill="yellow", width=2)
    draw.rectangle((0, 0, width - 1, height - 1), outline="red", width=5)
    for top in range(6, height, 48):
        draw.rectangle((5, top - 2, width - 6, top + 12), fill="red")
        draw.text((12, top - 1), "   ".join([WARNING] * max(width // 200, 1)), fill="white")
