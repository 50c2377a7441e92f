"""Small pyramids as scanners write them: which tiles are taken, and what is said of bad files."""

import base64
import dataclasses
import shutil
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from omnisurv.data.readers import ReadContext, pyramid
from omnisurv.data.readers.slides import SlidesSource, kind_of, parts_of
from omnisurv.data.readers.tiling import Tiling, decode_slides, tile_slide
from omnisurv.data.readers.tissue import Tissue, find_cells, find_tissue, stained_share
from omnisurv.data.spec import PatientRule
from omnisurv.data.store import Store, Unit
from omnisurv.errors import DataError, InputError
from omnisurv.modalities.wsi import Wsi, WsiOptions

openslide = pytest.importorskip("openslide")
tifffile = pytest.importorskip("tifffile")

T = 64
GLASS, PINK, STAINED = (244, 243, 245), (225, 160, 195), (100, 30, 120)
TILING = Tiling(tiles=10, tile=T, mpp=0.5, candidates=1000, assume_mpp=None, seed=0)
PLAIN = "TCGA-02-0001-01Z-00-DX1.svs"


def draw(stained: list[list[int | None]]) -> np.ndarray:
    """Return a slide of cells with so many stained lines of 64; None is glass.

    A cell's share of stain is known, and hatching makes it sharp.
    """
    picture = np.full((len(stained) * T, len(stained[0]) * T, 3), GLASS, np.uint8)
    for y, row in enumerate(stained):
        for x, lines in enumerate(row):
            if lines is None:
                continue
            cell = picture[y * T : (y + 1) * T, x * T : (x + 1) * T]
            cell[:] = PINK
            cell[::4] -= np.array([30, 30, 30], np.uint8)
            cell[:lines] = STAINED
    return picture


def write_slide(
    path: Path,
    picture: np.ndarray,
    mpp: float | None = 0.5,
    power: int | None = 20,
    description: str | None = None,
    **said: object,
) -> Path:
    """Write an Aperio-like pyramid with levels 1 and 4."""
    height, width = picture.shape[:2]
    if description is None:
        description = f"Aperio Image Library v10.0.51\n{width}x{height} (64x64) RGB"
        description += f"|AppMag = {power}" if power else ""
        description += f"|MPP = {mpp:.4f}" if mpp else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for step in (1, 4):
            file.write(
                picture[::step, ::step].copy(),
                tile=(64, 64),
                photometric="rgb",
                compression="zlib",
                description=description,
                metadata=None,
                software=False,
                **said,
            )
    return path


@pytest.fixture
def context(tmp_path: Path) -> ReadContext:
    return ReadContext(tmp_path, PatientRule(), modality="wsi", store=Store(tmp_path / "store"))


@pytest.fixture
def read(context: ReadContext) -> Callable[..., object]:
    """Read ``wsi`` with options of the kind, or of the source."""

    def run(source: dict[str, object] | None = None, **options: object):
        wsi = Wsi("wsi", WsiOptions(**{"tile": T, "tiles": 10, **options}))
        return wsi.read(SlidesSource(format="slides", path="wsi", **(source or {})), context)

    return run


def reasons(context: ReadContext, status: str) -> list[str]:
    return [row[-1] for row in context.audit.rows if row[-2] == status]


# Which tiles


def test_best_tiles_come_first_by_number_with_their_scores_and_places(tmp_path):
    """Twelve of fifteen: sorted as texts, the tenth would come second."""
    lines = [[60, 2, 24, 8, 16], [4, 32, 12, 20, 28], [36, 40, 6, 44, 10]]
    file = write_slide(tmp_path / PLAIN, draw(lines))
    tiled = tile_slide(file, dataclasses.replace(TILING, tiles=12))
    expected = sorted((n for row in lines for n in row), reverse=True)[:12]
    assert [tile.score for tile in tiled.tiles] == [n / T for n in expected]
    flat = [n for row in lines for n in row]
    assert [tile.corner for tile in tiled.tiles] == [
        (flat.index(n) % 5 * T, flat.index(n) // 5 * T) for n in expected
    ]
    np.testing.assert_array_equal(tiled.tiles[0].pixels, draw(lines)[:T, :T])
    assert (tiled.candidates, tiled.scanned_mpp, tiled.stated) == (15, 0.5, True)


def test_equal_tiles_go_by_position(tmp_path):
    file = write_slide(tmp_path / PLAIN, draw([[8, 8, 8], [8, 16, 8]]))
    tiled = tile_slide(file, dataclasses.replace(TILING, tiles=4))
    assert [tile.corner for tile in tiled.tiles] == [(T, T), (0, 0), (T, 0), (2 * T, 0)]


def test_glass_and_cells_with_less_than_half_tissue_are_no_candidates(tmp_path):
    picture = draw([[8, None, 8], [None, None, 8], [8, 8, 8]])
    picture[: 2 * T // 3, 2 * T :] = GLASS  # two thirds of a cell
    tiled = tile_slide(write_slide(tmp_path / PLAIN, picture), TILING)
    assert {tile.corner for tile in tiled.tiles} == {
        (0, 0), (2 * T, T), (0, 2 * T), (T, 2 * T), (2 * T, 2 * T),
    }  # fmt: skip


def test_a_slide_scanned_at_40x_gives_the_same_tiles(tmp_path):
    """Scores count pixels of one physical size, and a tile covers the same tissue."""
    rng = np.random.default_rng(0)
    fine = draw([[24, 8, None], [12, 40, 32]]).repeat(2, axis=0).repeat(2, axis=1).astype(float)
    fine += gaussian_filter(rng.normal(0, 60, fine.shape), (1.5, 1.5, 0))
    fine = np.clip(fine, 0, 255)
    coarse = fine.reshape(2 * T, 2, 3 * T, 2, 3).mean(axis=(1, 3))
    at20 = tile_slide(write_slide(tmp_path / "20.svs", np.rint(coarse).astype(np.uint8)), TILING)
    picture = np.rint(fine).astype(np.uint8)
    at40 = tile_slide(write_slide(tmp_path / "40.svs", picture, 0.25, 40), TILING)
    assert [tile.corner for tile in at40.tiles] == [
        (2 * x, 2 * y) for x, y in (tile.corner for tile in at20.tiles)
    ]
    for one, other in zip(at20.tiles, at40.tiles, strict=True):
        assert other.score == pytest.approx(one.score, abs=0.01)
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1
    assert at20.tiles[0].score == pytest.approx(40 / T, abs=0.02)


@pytest.mark.parametrize("mpp", [0.499, 0.5049, 0.2525])
def test_pixels_of_nearly_the_wanted_size_are_not_resampled(tmp_path, mpp):
    picture = draw([[24, 8], [12, 40]])
    times = round(0.5 / mpp)
    file = write_slide(tmp_path / PLAIN, picture.repeat(times, 0).repeat(times, 1), mpp)
    tiled = tile_slide(file, TILING)
    assert [tile.score for tile in tiled.tiles] == [n / T for n in (40, 24, 12, 8)]
    np.testing.assert_array_equal(tiled.tiles[0].pixels, picture[T:, T:])


def test_the_best_level_is_read(tmp_path):
    """At 2 µm/px the level downsampled by four has the very pixels."""
    picture = draw([[8, 40], [24, 16]]).repeat(4, 0).repeat(4, 1)
    picture[1::4] = 0  # which the level leaves out
    file = write_slide(tmp_path / PLAIN, picture)
    tiled = tile_slide(file, dataclasses.replace(TILING, mpp=2.0))
    assert [tile.score for tile in tiled.tiles] == [n / T for n in (40, 24, 16, 8)]
    assert [tile.corner for tile in tiled.tiles][:2] == [(4 * T, 0), (0, 4 * T)]


def test_squares_of_broken_size_do_not_drift(tmp_path):
    """At 0.46 µm/px a tile of 64 × 0.5 µm is 69.57 pixels wide."""
    file = write_slide(tmp_path / PLAIN, draw([[16] * 24] * 2), mpp=0.46)
    tiled = tile_slide(file, dataclasses.replace(TILING, tiles=40))
    side = T * 0.5 / 0.46
    across = sorted(tile.corner[0] for tile in tiled.tiles)
    assert across == [round(number * side) for number in range(int(24 * T / side))]
    assert across[-1] == 1461
    assert all(tile.pixels.shape == (T, T, 3) for tile in tiled.tiles)


@pytest.mark.parametrize("ink", [(20, 60, 190), (10, 130, 70), (22, 22, 24)])
def test_pen_marks_are_not_tiled(tmp_path, ink):
    picture = draw([[8, 16, 24, 8], [8, 8, 8, 8]])
    picture[20:44, 2 * T + 20 : 3 * T] = ink  # over the cell with the most stain
    tiled = tile_slide(write_slide(tmp_path / PLAIN, picture), TILING)
    corners = [tile.corner for tile in tiled.tiles]
    assert corners[0] == (T, 0)
    assert (2 * T, 0) not in corners
    assert len(corners) >= 6


def test_a_cell_that_ink_touches_is_no_candidate():
    """Ink is saturated and dark: a little of it outdoes the stain of a whole tile."""
    tissue, ink = np.ones((16, 32), bool), np.zeros((16, 32), bool)
    ink[3, 20] = True
    cells = find_cells(Tissue(tissue & ~ink, ink), 16, columns=2, rows=1)
    assert cells.columns.tolist() == [0]


def test_haematoxylin_eosin_and_blood_are_no_ink():
    for colour in [(90, 50, 130), (70, 30, 90), (200, 60, 120), (180, 20, 40), (60, 20, 40)]:
        found = find_tissue(np.full((40, 40, 3), colour, np.uint8))
        assert found.tissue.all()
        assert not found.ink.any()


def test_an_overview_has_no_seams(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (320, 480, 3), dtype=np.uint8)
    file = write_slide(tmp_path / PLAIN, noise)
    with openslide.OpenSlide(file) as slide:
        whole = [pyramid.read_overview(slide, factor) for factor in (2.718, 5.283, 8.0)]
        monkeypatch.setattr(pyramid, "BLOCK", 50)
        blocks = [pyramid.read_overview(slide, factor) for factor in (2.718, 5.283, 8.0)]
    assert [picture.shape[:2] for picture in whole] == [(117, 176), (60, 90), (40, 60)]
    for one, other in zip(whole, blocks, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1  # both are rounded
    means = noise[::4, ::4].reshape(40, 2, 60, 2, 3).mean(axis=(1, 3))
    assert np.abs(whole[2] - means).max() <= 1


def test_tiles_out_of_focus_are_left_out(tmp_path):
    picture = draw([[8, 60, 24]])
    blurred = gaussian_filter(picture[:, T : 2 * T].astype(float), (3, 3, 0))
    picture[:, T : 2 * T] = np.rint(blurred).astype(np.uint8)
    tiled = tile_slide(write_slide(tmp_path / PLAIN, picture), TILING)
    assert [tile.corner for tile in tiled.tiles] == [(2 * T, 0), (0, 0)]


def test_of_many_candidates_some_are_drawn_by_the_content_of_the_slide(tmp_path):
    file = write_slide(tmp_path / PLAIN, draw([[8] * 8] * 8))
    other = write_slide(tmp_path / "TCGA-02-0002-01Z-00-DX1.svs", draw([[8] * 8] * 7 + [[9] * 8]))
    few = dataclasses.replace(TILING, candidates=5)
    drawn = [tile.corner for tile in tile_slide(file, few).tiles]
    assert len(set(drawn)) == 5
    renamed = shutil.copyfile(file, tmp_path / "renamed.svs")
    assert [tile.corner for tile in tile_slide(renamed, few).tiles] == drawn
    assert [tile.corner for tile in tile_slide(other, few).tiles] != drawn
    reseeded = dataclasses.replace(few, seed=1)
    assert [tile.corner for tile in tile_slide(file, reseeded).tiles] != drawn


def test_stained_share_is_the_papers_rule_in_8_bit_hsv():
    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    tile[0, :4] = [(0, 0, 0), (170, 60, 60), (169, 82, 82), (169, 83, 83)]
    count = 0
    for pixel in tile.reshape(-1, 3).astype(int):
        value, chroma = pixel.max(), pixel.max() - pixel.min()
        saturation = round(255 * chroma / value) if value else 0
        count += saturation > 130 and value < 170
    assert stained_share(tile) == count / 64**2
    assert stained_share(tile[:1, 2:3]) == 1.0
    assert stained_share(tile[:1, 3:4]) == 0.0  # its saturation is just 130


def test_cells_are_counted_on_broken_sides():
    tissue = np.zeros((10, 35), bool)
    tissue[:, 18:21] = True  # half of the cell from 17.5 to 21
    found = Tissue(tissue, np.zeros_like(tissue))
    cells = find_cells(found, 3.5, columns=10, rows=2)
    assert list(zip(cells.columns.tolist(), cells.rows.tolist(), strict=True)) == [(5, 0), (5, 1)]


# What is known of a slide


def test_scale_is_read_from_the_resolution_of_a_tiff(tmp_path):
    file = write_slide(
        tmp_path / "a.tif",
        draw([[8, 16]]),
        description="",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    assert tile_slide(file, TILING).scanned_mpp == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            {"mpp": None, "power": 40},
            "states no µm/px, only a nominal 40x objective; if you know the scanner's, say "
            "`assume_mpp: 0.25`",
        ),
        ({"mpp": None, "power": None}, "states no µm/px; if you know"),
        (
            {"description": "", "resolution": (72, 72), "resolutionunit": "INCH"},
            "states no µm/px; if you know",
        ),
        ({"mpp": 1.0, "power": 10}, "was scanned at 1 µm/px, coarser than `mpp: 0.5`"),
    ],
)
def test_slides_of_unknown_or_too_coarse_scale_are_refused(tmp_path, said, sentence):
    file = write_slide(tmp_path / PLAIN, draw([[8, 16]]), **said)
    with pytest.raises(DataError) as error:
        tile_slide(file, TILING)
    assert str(error.value).startswith(f"{file} {sentence}")
    assert "\n" not in str(error.value)


def test_assumed_scale_is_used_where_none_is_stated_and_audited(tmp_path, read, context):
    picture = draw([[8, 16], [24, None]])
    large = picture.repeat(2, axis=0).repeat(2, axis=1)
    write_slide(tmp_path / "wsi" / PLAIN, large, None, 40)
    write_slide(tmp_path / "wsi" / "TCGA-02-0002-01Z-00-DX1.svs", picture)
    images = read({"assume_mpp": 0.25})
    assert images.meta(0)["scanned_mpp"] == [0.25]
    assert images.meta(0)["positions"] == [[0, 2 * T], [2 * T, 0], [0, 0]]
    assert images.meta(1)["scanned_mpp"] == [0.5]
    assert f"1 slides state no µm/px, 0.25 is assumed: {PLAIN}" in reasons(context, "warning")
    assert read(assume_mpp=0.5, tiles=20).meta(0)["scanned_mpp"] == [0.5]


# Whose slides


def test_tiles_of_all_slides_of_a_patient_compete(tmp_path, read, context):
    write_slide(tmp_path / "wsi" / "u1" / PLAIN, draw([[8, 40], [24, None]]))
    second = "TCGA-02-0001-01Z-00-DX2.svs"
    write_slide(tmp_path / "wsi" / "u2" / second, draw([[32, 8], [None, 60]]))
    images = read(tiles=5)
    meta = images.meta(0)
    assert list(images.obs_names) == ["TCGA-02-0001"]
    assert images.uns == {"scale": "rgb"}
    assert [n * T for n in meta["scores"]] == [60, 40, 32, 24, 8]
    assert meta["slides"] == [PLAIN, second]
    assert meta["slide_of_tile"] == [1, 0, 1, 0, 0]  # of two with 8 the first slide's
    assert meta["kind"] == "diagnostic"
    assert images.array(0).shape == (5, T, T, 3)
    assert images.array(0).dtype == np.uint8
    kept = {row[1] for row in context.audit.rows if row[-2] == "kept"}
    assert kept == {f"wsi/u1/{PLAIN}", f"wsi/u2/{second}"}
    thumbnail = Image.open(BytesIO(base64.b64decode(meta["thumbnail"])))
    assert thumbnail.mode == "RGB"
    assert max(thumbnail.size) <= 256


def test_a_patient_with_fewer_tiles_keeps_what_there_is(tmp_path, read, context):
    write_slide(tmp_path / "wsi" / PLAIN, draw([[8, 40], [24, None]]))
    assert read().array(0).shape == (3, T, T, 3)
    assert "1 patients have fewer than 10 tiles of tissue: TCGA-02-0001 3" in reasons(
        context, "warning"
    )


def test_kind_is_in_the_name_and_the_tissue_is_not():
    assert kind_of("TCGA-02-0001-01Z-00-DX1.4b2c.svs") == "diagnostic"
    assert kind_of("TCGA-02-0001-01A-01-TS1.4b2c.svs") == "frozen"
    assert kind_of("TCGA-02-0001-01A-01-BS1.svs") == kind_of("TCGA-02-0001-11A-01-MSA.svs")
    assert kind_of("patient7-DX1.svs") is None


def test_frozen_and_normal_slides_are_left_out_and_named(tmp_path, read, context):
    names = [PLAIN, "TCGA-02-0001-01A-01-TS1.svs", "TCGA-02-0002-11A-01-TS1.svs"]
    for name in names:
        write_slide(tmp_path / "wsi" / name, draw([[8, 40]]))
    assert read().meta(0)["slides"] == [PLAIN]
    assert reasons(context, "dropped") == ["a frozen slide, `slides: diagnostic` are read"] * 2
    context.audit.rows.clear()
    images = read(slides="any")
    assert list(images.obs_names) == ["TCGA-02-0001"]
    assert set(images.meta(0)["slides"]) == set(names[:2])
    assert images.meta(0)["kind"] == "mixed"
    assert reasons(context, "dropped") == [
        "sample type 11 (solid tissue normal) is not 01 (primary tumour)"
    ]


def test_only_frozen_slides_are_refused_with_the_option(tmp_path, read):
    write_slide(tmp_path / "wsi" / "TCGA-02-0001-01A-01-TS1.svs", draw([[8, 40]]))
    with pytest.raises(DataError, match=r"all 1 are frozen; say `slides: frozen`"):
        read()


def test_sample_sheet_says_whose_a_slide_is(tmp_path, read, context):
    for number in (1, 2):
        write_slide(tmp_path / "wsi" / f"u{number}" / f"slide{number}.svs", draw([[8, 40]]))
    write_slide(tmp_path / "wsi" / "u3" / "slide3.svs", draw([[8, 40]]))
    (tmp_path / "wsi" / "u1" / "logs").mkdir()
    (tmp_path / "wsi" / "u1" / "logs" / "slide1.svs").write_text("log")
    (tmp_path / "wsi" / "u1" / "slide9.svs.partial").write_text("half")
    (tmp_path / "sheet.tsv").write_text(
        "File ID\tFile Name\tProject ID\tCase ID\tSample ID\n"
        "u1\tslide1.svs\tTCGA-GBM\tTCGA-02-0001\tTCGA-02-0001-01Z\n"
        "u2\tslide2.svs\tTCGA-GBM\tTCGA-02-0002\tTCGA-02-0002-11A\n"
    )
    images = read({"sample_sheet": "sheet.tsv"})
    assert list(images.obs_names) == ["TCGA-02-0001"]
    dropped = {(row[1], row[-1]) for row in context.audit.rows if row[-2] == "dropped"}
    assert dropped == {
        ("u1/slide9.svs.partial", "interrupted download"),
        ("wsi/u3/slide3.svs", "neither sheet nor name says whose it is"),
        (
            "wsi/u2/slide2.svs",
            "sample type 11 (solid tissue normal) is not 01 (primary tumour)",
        ),
    }


def test_names_become_patients_by_the_rule_of_the_spec(tmp_path):
    write_slide(tmp_path / "wsi" / "case_17_b.tif", draw([[8, 40]]))
    rule = PatientRule(id="regex", pattern=r"case_(\d+)")
    context = ReadContext(tmp_path, rule, store=Store(tmp_path / "store"))
    wsi = Wsi("wsi", WsiOptions(tile=T))
    images = wsi.read(SlidesSource(format="slides", path="wsi"), context)
    assert list(images.obs_names) == ["17"]


def test_nobodys_slides_are_refused(tmp_path, read):
    write_slide(tmp_path / "wsi" / "slide1.svs", draw([[8, 40]]))
    with pytest.raises(DataError, match=r"nothing says whose the slides of .* \(slide1\.svs\)"):
        read()


def test_a_folder_without_slides_is_refused(tmp_path, read):
    (tmp_path / "wsi").mkdir()
    with pytest.raises(DataError, match=r"wsi holds no slide \(\.svs, \.tif"):
        read()


def test_missing_packages_are_named(tmp_path, read, monkeypatch):
    write_slide(tmp_path / "wsi" / PLAIN, draw([[8, 40]]))
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(InputError, match=r"pip install 'omnisurv\[wsi\]'"):
        read()


# Damaged files


def spoil_middle(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[400:-3000] = bytes(len(data) - 3400)
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def jpeg(file: Path) -> None:
    Image.fromarray(draw([[8]])).save(file, format="JPEG")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda file: file.write_bytes(b""), "is empty (0 bytes); download it again"),
        (lambda file: file.write_bytes(b"IJrEr1vV" * 99), "is no slide that OpenSlide reads"),
        (jpeg, "is a plain JPEG or PNG picture under the name of a slide; get the slide itself"),
        (
            lambda file: file.write_bytes(file.read_bytes()[:300]),
            "is a TIFF that OpenSlide does not read: cut short",
        ),
        (cut, "cannot be read to its end ("),
        (spoil_middle, "cannot be read to its end ("),
        (
            lambda file: write_slide(file, np.full((256, 256, 3), 244, np.uint8)),
            "shows no tissue: no tile is half stained and free of ink",
        ),
        (
            lambda file: write_slide(file, np.full((256, 256, 3), PINK, np.uint8)),
            "is blurred: none of 16 tiles of tissue is sharp",
        ),
        (
            lambda file: write_slide(file, np.full((50, 90, 3), PINK, np.uint8)),
            "is 90×50 pixels, smaller than one tile of 32 µm",
        ),
    ],
)
def test_a_bad_slide_is_named_and_the_others_are_kept(tmp_path, read, context, spoil, sentence):
    rng = np.random.default_rng(0)
    noisy = draw([[8, 40], [8, 8]])
    noisy -= rng.integers(0, 20, noisy.shape, dtype=np.uint8)  # so that it does not deflate
    write_slide(tmp_path / "wsi" / "TCGA-02-0002-01Z-00-DX1.svs", noisy)
    bad = write_slide(tmp_path / "wsi" / PLAIN, noisy)
    spoil(bad)
    with pytest.raises(DataError) as error:
        decode_slides(Unit("TCGA-02-0001", (bad,)), dataclasses.asdict(TILING))
    assert str(error.value).startswith(f"{bad} {sentence}")
    assert "\n" not in str(error.value)
    assert list(read().obs_names) == ["TCGA-02-0002"]
    (reason,) = reasons(context, "dropped")
    assert reason.startswith(f"damaged file: {bad} {sentence}")


def test_a_slide_shorter_than_the_manifest_says_is_left_out(tmp_path, read, context):
    """Its missing part may be one that no tile is read from."""
    for patient in (1, 2):
        name = f"TCGA-02-000{patient}-01Z-00-DX1.svs"
        size = write_slide(tmp_path / "wsi" / name, draw([[8, 40]])).stat().st_size
    (tmp_path / "wsi" / "gdc_manifest.txt").write_text(
        "id\tfilename\tmd5\tsize\tstate\n"
        f"u1\t{PLAIN}\t-\t{size + 9}\tok\n"
        f"u2\tTCGA-02-0002-01Z-00-DX1.svs\t-\t{size}\tok\n"
    )
    assert list(read().obs_names) == ["TCGA-02-0002"]
    (reason,) = reasons(context, "dropped")
    assert reason.endswith(f"has {size} bytes, the manifest says {size + 9}; download it again")


def test_the_pixels_of_a_mirax_slide_lie_in_a_folder_beside(tmp_path):
    slide = tmp_path / "a.mrxs"
    slide.write_bytes(b"x")
    (tmp_path / "a").mkdir()
    for name in ("Slidedat.ini", "Data0000.dat"):
        (tmp_path / "a" / name).write_bytes(b"x")
    names = ["a.mrxs", "a/Data0000.dat", "a/Slidedat.ini"]
    assert parts_of(slide) == [tmp_path / name for name in names]
    assert parts_of(tmp_path / "a.svs") == [tmp_path / "a.svs"]


def test_a_patient_with_a_bad_and_a_good_slide_keeps_the_good_one(tmp_path, read, context):
    good = "TCGA-02-0001-01Z-00-DX2.svs"
    (tmp_path / "wsi").mkdir()
    (tmp_path / "wsi" / PLAIN).write_bytes(b"")
    write_slide(tmp_path / "wsi" / good, draw([[8, 40]]))
    assert read().meta(0)["slides"] == [good]
    (row,) = [row for row in context.audit.rows if row[-2] == "dropped"]
    assert row[1] == PLAIN
    assert row[-1].startswith("left out: ")
    assert row[-1].endswith("is empty (0 bytes); download it again")


@pytest.mark.realdata
def test_a_real_slide_is_tiled_and_a_broken_one_skipped(tmp_path, real_data):
    (tmp_path / "wsi").mkdir()
    for name in ("CMU-1-Small-Region.svs", "broken.svs"):
        shutil.copyfile(real_data / "wsi" / name, tmp_path / "wsi" / name)
    context = ReadContext(tmp_path, PatientRule(id="column"), store=Store(tmp_path / "store"))
    images = Wsi("wsi", WsiOptions()).read(SlidesSource(format="slides", path="wsi"), context)
    assert list(images.obs_names) == ["CMU-1-Small-Region"]
    tiles, meta = images.array(0), images.meta(0)
    assert tiles.shape == (10, 256, 256, 3)
    assert meta["scanned_mpp"] == [0.499]
    assert meta["scores"] == sorted(meta["scores"], reverse=True)
    assert 0.4 < meta["scores"][0] < 0.6
    assert meta["scores"][0] == stained_share(tiles[0])
    # Purple and pink: more red and blue than green.
    means = tiles.mean(axis=(1, 2))
    assert (means[:, 1] < means[:, [0, 2]].min(axis=1)).all()
    (reason,) = reasons(context, "dropped")
    assert reason.startswith("damaged file: ")
    assert "broken.svs is no slide that OpenSlide reads" in reason
