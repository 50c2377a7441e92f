"""One patient's page: imputed is never drawn without the word, left and right are not swapped."""

import base64
import io

import numpy as np
import pandas as pd
import picture_cohort
import pytest
import tiny
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

import omnisurv as om
from omnisurv import plots
from omnisurv.data.images import FilledImages, Images
from omnisurv.data.store import Entry
from omnisurv.errors import DataError
from omnisurv.pages import hidden as hiddenpage
from omnisurv.pages import patient as patientpage
from omnisurv.pages import patients as patientspage
from omnisurv.plots.pictures import RANGE
from omnisurv.plots.style import VERMILION
from tests.commands import runner, write_cohort

SIDE = 8
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
PLACE = {"affine": AFFINE.tolist(), "canonical": [[0, 1], [1, 1], [2, 1]], "start": [0, 0, 0]}


def words(axes):
    return [text.get_text() for text in axes.findobj(Text) if text.get_text()]


def drawn(figure):
    """Draw a figure, so that it is known to draw, and return it."""
    with plots.style():
        figure.draw_without_rendering()
    return figure


def measured(cube, place=PLACE):
    images = Images([Entry("P", cube, place)], "z-score")
    return _filled(cube, images, False, place)


def imputed(cube, like=None, half=0.5):
    return _filled(cube, None, True, like, half)


def _filled(cube, images, whole, like, half=0.5):
    values = cube[None, None, ..., None]
    halves = np.full((1, *cube.shape, 1), half, np.float32)
    return FilledImages(["P"], images, values, halves, np.array([whole]), [like], 0.9, "runs/a")


def ones():
    return np.ones((SIDE,) * 3, np.float32)


def pixels(axes):
    """The picture of a panel as it is seen, rows from the top."""
    (picture,) = axes.images
    assert picture.origin == "upper"
    return np.ma.filled(picture.get_array().astype(float), np.nan)


def marked(point):
    cube = ones()
    cube[point] = 2.5
    return plots.volume_slices({"t1": measured(cube)}, "P").axes[:3]


@pytest.mark.parametrize(
    ("point", "panel", "row", "column"),
    [
        # Canonical axes rise to the patient's right, to the front and upward.
        ((0, 4, 4), 0, 3, 7),  # patient's left: right-hand side of the axial view
        ((4, 7, 4), 0, 0, 3),  # front: top of the axial view
        ((0, 4, 4), 1, 3, 7),  # left: right-hand side of the coronal view
        ((4, 4, 7), 1, 0, 3),  # top of the head: top of the coronal view
        ((4, 7, 4), 2, 3, 0),  # front: left-hand side of the sagittal view
        ((4, 4, 7), 2, 0, 3),
    ],
)
def test_a_marked_voxel_appears_where_a_radiologist_looks_for_it(point, panel, row, column):
    seen = pixels(marked(point)[panel])
    assert np.argwhere(seen == 2.5).tolist() == [[row, column]]


def test_sides_are_written_where_they_are():
    for axes, (left, right) in zip(marked((0, 0, 0)), ("RL", "RL", "AP"), strict=True):
        places = {t.get_text(): t.get_position()[0] for t in axes.texts}
        assert places[left] < 0.1
        assert places[right] > 0.9


def test_lengths_are_in_proportion_whatever_the_order_of_the_file():
    axial, coronal, sagittal = marked((0, 0, 0))
    assert axial.images[0].get_extent() == [0, 8, 0, 8]
    assert coronal.images[0].get_extent() == [0, 8, 0, 16]  # 2 mm upward
    assert {axes.get_aspect() for axes in (axial, coronal, sagittal)} == {1.0}
    turned = {"affine": np.diag([3.0, 1.0, 2.0, 1.0]), "canonical": [[2, -1], [0, 1], [1, 1]]}
    figure = plots.volume_slices({"t1": measured(ones(), turned)}, "P")
    assert figure.axes[0].images[0].get_extent() == [0, 8, 0, 16]  # x 1 mm, y 2 mm
    assert figure.axes[1].images[0].get_extent() == [0, 8, 0, 24]  # z 3 mm


def test_every_imputed_picture_says_so_and_is_framed():
    volumes = {"t1": measured(ones()), "t2": imputed(ones()), "flair": imputed(ones())}
    figure = drawn(plots.volume_slices(volumes, "P"))
    panels = np.array(figure.axes[:12]).reshape(3, 4)
    assert not any("imputed" in " ".join(words(axes)) for axes in panels[0])
    assert panels[0, 0].get_ylabel() == "t1\nmeasured"
    for row in panels[1:]:
        for axes in row[:3]:
            assert "imputed" in words(axes)
        for axes in row:
            edges = {to_hex(s.get_edgecolor()) for s in axes.spines.values()}
            assert edges == {VERMILION.lower()}
    assert panels[1, 0].get_ylabel() == "t2\nimputed"
    assert panels[1, 3].get_title() == "± 90% interval"
    assert not panels[0, 3].images
    assert len(figure.axes) == 12 + 2  # and two bars


def test_measured_alone_has_no_column_of_intervals():
    figure = plots.volume_slices({"t1": measured(ones()), "t2": measured(ones())}, "P")
    assert len(figure.axes) == 6 + 1
    assert not any("imputed" in word for axes in figure.axes for word in words(axes))


def test_half_widths_are_drawn_as_they_are_and_unknown_ones_are_not():
    figure = plots.volume_slices({"t2": imputed(ones(), half=0.5)}, "P")
    assert (pixels(figure.axes[3]) == 0.5).all()
    unknown = plots.volume_slices({"t2": imputed(ones(), half=np.inf)}, "P")
    assert np.isnan(pixels(unknown.axes[3])).all()
    assert "interval\nnot known" in words(unknown.axes[3])


def test_grey_means_the_same_in_every_figure():
    for factor in (0.1, 10):
        figure = plots.volume_slices({"t1": measured(factor * ones())}, "P")
        assert figure.axes[0].images[0].get_clim() == (-RANGE, RANGE)
        assert figure.axes[-1].get_xlabel() == "z-score over the brain"
        assert figure.axes[-1].get_xlim() == (-RANGE, RANGE)


def test_padding_is_nothing_and_background_black_in_imputed_ones_too():
    cube = ones()
    cube[:2], cube[:, :2] = 0.0, np.nan
    guess = 0.3 * ones()
    volumes = {"t1": measured(cube), "t2": imputed(guess, like=PLACE), "flair": imputed(guess)}
    figure = drawn(plots.volume_slices(volumes, "P"))
    first, second, third = (pixels(figure.axes[4 * row]) for row in range(3))
    for seen, value in ((first, 1.0), (second, np.float32(0.3))):
        assert np.isnan(seen[6:]).all()  # y below 2, at the back
        assert (seen[:6, 6:] == -RANGE).all()  # x below 2, at the left
        assert (seen[:6, :6] == value).all()
    assert (third == np.float32(0.3)).all()  # on a grid of which nothing is known
    assert any(patch.get_hatch() for patch in figure.axes[0].patches)


# Slides.


def told(positions, slides=1):
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (64, 32), "pink").save(stream, format="PNG")
    count = len(positions)
    return {
        "mpp": 0.5,
        "scores": [0.9 - 0.1 * number for number in range(count)],
        "positions": positions,
        "slides": ["a.svs", "b.svs"][:slides],
        "slide_of_tile": [0] * (count - slides + 1) + [1] * (slides - 1),
        "sizes": [[4000, 2000]] * slides,
        "scanned_mpp": [0.25] * slides,
        "thumbnail": base64.b64encode(stream.getvalue()).decode(),
    }


def tiles(count, side):
    return np.full((count, side, side, 3), 180, np.uint8)


def rectangles(axes):
    """Corner, width and fill of the coloured rectangles; each has a white rim below."""
    return [(p.get_xy(), p.get_width(), p.get_fill()) for p in axes.patches[1::2]][::-1]


def test_tiles_lie_where_they_were_taken_with_their_scores():
    figure = drawn(plots.tile_gallery(tiles(2, 128), told([[100, 200], [3000, 1000]])))
    slide, bar, *grid = figure.axes
    assert slide.images[0].get_extent() == [0, 4000, 2000, 0]
    # 128 pixels of 0.5 µm are 256 pixels at 0.25 µm
    assert rectangles(slide) == [((100, 200), 256, False), ((3000, 1000), 256, False)]
    assert bar.get_xlabel() == "score: share of stained pixels"
    assert [axes.get_title(loc="left") for axes in grid] == ["1   0.900", "2   0.800"]
    assert "1.0 mm across" in slide.get_xlabel()
    colours = [to_hex(p.get_edgecolor()) for p in slide.patches[1::2]][::-1]
    assert [to_hex(axes.spines["top"].get_edgecolor()) for axes in grid] == colours
    assert len(set(colours)) == 2


def test_tiles_too_small_to_be_seen_are_enlarged_around_their_middle_and_it_says_so():
    figure = plots.tile_gallery(tiles(1, 4), told([[1000, 1000]]))
    slide = figure.axes[0]
    ((x, y), side, filled) = rectangles(slide)[0]
    assert side > 8
    assert filled
    assert (x + side / 2, y + side / 2) == (1004, 1004)
    assert "rectangles larger than the tiles" in slide.get_xlabel()


def test_tiles_of_another_slide_are_not_drawn_on_this_one():
    figure = plots.tile_gallery(tiles(3, 128), told([[0, 0], [500, 0], [900, 0]], slides=2))
    assert len(rectangles(figure.axes[0])) == 2
    assert "1 tiles are of other slides" in figure.axes[0].get_xlabel()


def test_a_gallery_without_scores_or_slide_has_its_tiles():
    figure = drawn(plots.tile_gallery(tiles(3, 8), {}))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["1", "2", "3"]


def test_no_more_than_twenty_tiles_are_drawn():
    assert len(plots.tile_gallery(tiles(30, 4), {}).axes) == 20


# One patient.


def test_cells_and_counts():
    table = pd.DataFrame(
        {
            "state": ["available", "partly", "imputed", "missing"],
            "count": ["9", "3 of 5", "7", "-"],
        },
        index=["rna", "clinical", "t1", "cnv"],
    )
    (axes,) = drawn(plots.patient_modalities(table)).axes
    assert words(axes) == [
        *("rna", "available", "9", "clinical", "partly", "3 of 5"),
        *("t1", "imputed", "7", "cnv", "missing", "-"),
    ]
    assert len(axes.patches) == 4


def test_curves_stand_before_everybodys_and_equal_ones_are_one():
    days = pd.Index([0.0, 400.0, 2000.0])
    curve, other = pd.Series([1, 0.8, 0.4], days), pd.Series([1, 0.6, 0.2], days)
    follow_up = pd.DataFrame({"time": [100.0, 500.0, 900.0, np.nan], "event": [1, 0, 1, 1]})
    singles = {"rna": other, "t1": other + 0.001, "wsi": 0.9 * curve}
    (axes,) = drawn(plots.patient_curve(curve, follow_up, singles)).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        "this patient, all there is",
        "wsi alone",
        "rna, t1 each alone",
        "3 training patients\n(Kaplan–Meier, 95% band)",
    ]
    assert axes.lines[-1].get_ydata().tolist() == [1, 0.8, 0.4]
    np.testing.assert_allclose(axes.lines[-1].get_xdata()[-1], 2000 / 365.25)
    (alone,) = plots.patient_curve(curve, follow_up.iloc[:0]).axes
    assert len(alone.lines) == 1


# The page.


@pytest.fixture(scope="module")
def parts():
    return picture_cohort.cohort(60).split()


@pytest.fixture(scope="module")
def model(parts):
    return om.finetune(tiny.recipe(), parts[0])


def who(cohort, **wanted):
    has = cohort.availability
    chosen = np.all([has[name] == value for name, value in wanted.items()], axis=0)
    return cohort.patients[chosen][0]


def sections_of(model, cohort, patient):
    sections = patientpage.patient_sections(model, cohort, patient)
    for section in sections:
        if section.figure is not None:
            drawn(section.figure)
    assert len({section.title for section in sections}) == len(sections)
    return {section.title: section for section in sections}


def test_a_patient_with_gaps(model, parts):
    patient = who(parts[1], t1=True, t2=False, wsi=False, clinical=True, rna=True)
    found = sections_of(model, parts[1], patient)
    assert list(found) == [
        f"A patient: {patient}",
        "Predicted survival",
        "MRI",
        "wsi: imputed",
        "Measured, and imputed when hidden",
        "Clinical and other values",
    ]
    first = found[f"A patient: {patient}"]
    assert first.text == (
        f"{patient} has clinical, rna and t1. Imputed whole, from what is there: t2 and wsi. What "
        "is imputed is a guess of the model, not a measurement."
    )
    assert {"24 values", "8×8×8 voxels", "3 tiles, features"} <= set(words(first.figure.axes[0]))
    assert "There is no t2 of this patient" in found["MRI"].text
    assert found["MRI"].alt.endswith("t1 measured, t2 imputed")
    slide = found["wsi: imputed"]
    assert "no tissue was seen" in slide.text
    assert "imputed: no tissue was seen" in words(slide.figure.axes[0])
    assert not slide.figure.axes[0].images  # nothing that looks like tissue
    assert len(slide.table) == 3
    assert "after 1 year," in found["Predicted survival"].text


def test_a_patient_with_all_pictures_is_called_measured(model, parts):
    patient = who(parts[1], t1=True, t2=True, wsi=True)
    found = sections_of(model, parts[1], patient)
    assert "imputed" not in found["MRI"].text + found["MRI"].alt + found["MRI"].caption
    assert len(found["MRI"].figure.axes) == 6 + 1
    tiles_there = len(parts[1]["wsi"].of(patient).open())
    measured = found["wsi: measured tiles"]
    assert f"The {tiles_there} most stained tiles" in measured.text
    assert len(measured.figure.axes) == tiles_there


def test_imputed_values_have_intervals_and_measured_ones_have_none(model, parts):
    dev, test = parts
    lacking = who(dev, clinical=False)
    table = sections_of(model, dev, lacking)["Clinical and other values"].table
    assert list(table["variable"]) == ["age", "grade"]
    assert set(table["source"]) == {"imputed"}
    patient = who(test, clinical=True)
    known = sections_of(model, test, patient)["Clinical and other values"]
    assert set(known.table["source"]) == {"measured"}
    np.testing.assert_array_equal(
        known.table["value"], test["clinical"][[patient]].X[0].astype(np.float32)
    )
    assert known.table["90% interval"].isna().all()
    assert known.text == "All of them were measured."


def test_the_slider_goes_through_measured_imputed_and_hidden_volumes(model, parts):
    test = parts[1]
    patient = who(test, t1=True, t2=False, clinical=True, rna=True)
    stack = sections_of(model, test, patient)["MRI"].stack
    told = [(picture.title, picture.imputed) for picture in stack.pictures]
    assert told == [
        ("t1, measured", False), ("t1, imputed when hidden", True), ("t2, imputed", True),
    ]  # fmt: skip
    assert {len(picture.steps) for picture in stack.pictures} == {SIDE} == {len(stack.steps)}
    assert stack.steps[stack.start] == "5 of 8"
    measured = test["t1"].of(patient).open()
    for at, data in ((SIDE - 1, stack.pictures[0].steps[-1]), (4, stack.pictures[0].steps[4])):
        seen = np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=float)
        z = np.clip(measured[:, :, at].T[::-1, ::-1], -RANGE, RANGE)
        np.testing.assert_allclose((seen - 1) / 252 * 2 * RANGE - RANGE, z, atol=RANGE / 60)
    outside = Image.open(io.BytesIO(stack.pictures[0].steps[0])).convert("RGBA")
    assert np.isnan(measured[:, :, 0]).all()
    assert (np.asarray(outside)[..., 3] == 0).all()  # transparent, and so hatched


def test_what_is_imputed_when_hidden_does_not_look_at_what_is_hidden(model, parts):
    test = parts[1]
    patient = who(test, t1=True, wsi=True, clinical=True, rna=True)
    alone = test.subset([patient])
    tables = {name: alone[name].copy() for name in alone.modalities}
    tables["rna"].X = tables["rna"].X * 3.0
    changed = om.Cohort(alone.obs, tables, alone.spec)
    before, after = (
        hiddenpage._hidden_values(model, cohort, 0.9)["rna"] for cohort in (alone, changed)
    )
    first = sections_of(model, test, patient)["Measured, and imputed when hidden"]
    assert list(first.table["channel"]) == ["red", "green", "blue"]
    tiles = test["wsi"].of(patient).open()
    np.testing.assert_allclose(first.table["measured"], tiles.mean(axis=(0, 1, 2)))
    assert not np.allclose(before["measured"], after["measured"])
    np.testing.assert_array_equal(before["imputed"], after["imputed"])


def test_a_patient_of_the_training_is_called_one(model, parts):
    dev, test = parts
    for cohort, said in ((dev, True), (test, False)):
        first = patientpage.patient_sections(model, cohort, cohort.patients[0])[0]
        assert ("The model saw this patient in" in first.text) is said


def test_a_cohort_without_pictures_has_no_pictures():
    model, (_, test) = tiny.survival(), tiny.parts()
    assert patientpage.example_patient(test) is None
    patient = test.patients[(test.availability.sum(axis=1) > 1) & ~test.availability["dnam"]][0]
    found = sections_of(model, test, patient)
    assert [title.split(":")[0] for title in found] == [
        "A patient",
        "Predicted survival",
        "Measured, and imputed when hidden",
        "Clinical and other values",
    ]
    assert "dnam" in found[f"A patient: {patient}"].text.split("Imputed whole")[1]


def test_single_values_that_were_imputed_are_told_from_whole_modalities():
    model, (_, test) = tiny.survival(), tiny.parts()
    holes = np.isnan(test["clinical"].X).any(axis=1)
    patient = test["clinical"].obs_names[holes][0]
    found = sections_of(model, test, patient)
    assert "Single values of" in found[f"A patient: {patient}"].text
    table = found["Clinical and other values"].table
    clinical = table[table["modality"] == "clinical"]
    assert set(clinical["source"]) == {"measured", "imputed"}
    assert (clinical["90% interval"].notna() == (clinical["source"] == "imputed")).all()


def test_a_pretrained_model_predicts_no_survival():
    model, (_, test) = tiny.pretrained(), tiny.parts()
    assert "Predicted survival" not in sections_of(model, test, test.patients[0])


def test_a_patient_with_nothing_is_said_to_have_nothing(model, parts):
    test = parts[1]
    bare = om.Cohort(
        pd.concat([test.obs, pd.DataFrame({"time": [100.0], "event": [1.0]}, index=["NOBODY"])]),
        {name: test[name] for name in test.modalities},
    )
    found = sections_of(model, bare, "NOBODY")
    assert found["A patient: NOBODY"].text.startswith(
        "NOBODY has no modality at all. Imputed whole, from the training patients alone: "
    )


def test_modalities_that_the_model_does_not_know(parts):
    dev, test = parts
    model = om.pretrain(tiny.recipe(), dev.drop_modalities(["t2", "wsi"]))
    patient = who(test, t2=False, wsi=True)
    first = patientpage.patient_sections(model, test, patient)[0]
    assert "Missing, and not known to the model: t2." in first.text
    assert {"not in the model", "not used by the model"} <= set(words(first.figure.axes[0]))


def test_an_unknown_patient_is_refused(model, parts):
    with pytest.raises(DataError, match="not in the cohort: TCGA-99-9999"):
        patientpage.patient_sections(model, parts[1], "TCGA-99-9999")


def test_the_example_has_some_sequences_and_lacks_others(parts):
    test = parts[1]
    patient = patientpage.example_patient(test)
    has = test.availability.loc[patient]
    assert has["t1"] != has["t2"]
    whole = test.subset(test.patients[test.availability.all(axis=1)])
    assert patientpage.example_patient(whole) is None
    slides = test.drop_modalities(["t1", "t2"])
    chosen = patientpage.example_patient(slides)
    assert slides.availability.loc[chosen, "wsi"]
    assert not slides.availability.loc[chosen].all()


def test_a_report_shows_patients_who_differ(model, parts):
    test = parts[1]
    chosen = patientspage.differing_patients(model, test)
    assert chosen == patientspage.differing_patients(model, test)
    assert len(set(chosen)) == 3
    assert patientpage.example_patient(test) in chosen
    rank = model.predict(test).rank()[chosen]
    third = len(test) / 3
    assert [int((r - 1) // third) for r in rank] == [0, 1, 2]
    some = test.subset(test.patients[:2])
    assert sorted(patientspage.differing_patients(model, some)) == sorted(some.patients)


def test_a_report_folds_each_patient_behind_what_distinguishes_it(model, parts, monkeypatch):
    test = parts[1]
    chosen = patientspage.differing_patients(model, test)[::2]

    def refuse(model, cohort, patient):
        if patient == chosen[0]:
            raise DataError("nothing to say")
        return [patientspage.Section(f"A patient: {patient}")]

    monkeypatch.setattr(patientspage, "patient_sections", refuse)
    section = patientspage.patients_section(model, test, chosen)
    lines = [fold.summary for fold in section.folds]
    for name, line, level in zip(chosen, lines, ("low", "high"), strict=True):
        rank = int(model.predict(test).rank()[name])
        assert line.startswith(f"{name}: {level} predicted risk (rank {rank} of {len(test)}), ")
        lacks = test.availability.columns[~test.availability.loc[name]]
        assert line.endswith(f"lacks {', '.join(lacks)}" if len(lacks) else "all 5 modalities")
    assert section.folds[0].sections[0].text == "Left out: nothing to say."
    assert section.folds[1].sections[0].title == f"A patient: {chosen[1]}"


def test_the_page_is_written(model, parts, tmp_path):
    patient = patientpage.example_patient(parts[1])
    path = patientpage.patient_page(
        tmp_path / "p.html", model, parts[1], patient, "omnisurv patient"
    )
    page = path.read_text(encoding="utf-8")
    assert f"<h1>Patient {patient}</h1>" in page
    assert page.count('<figure class="wide"') == 5
    assert page.count('<input type="range"') == 1
    assert "not for clinical use" in page


def test_the_command_writes_the_page_or_says_what_is_wrong(tmp_path, capsys):
    spec = write_cohort(tmp_path / "cohort", patients=30)
    run = om.save(tiny.survival(), tmp_path / "run")
    call, out = runner(capsys), tmp_path / "pages" / "p.html"
    patient = om.Cohort.from_spec(spec).patients[0]
    answer = call("patient", run, spec, patient, "--out", out, "--quiet")
    assert (answer.code, answer.out.strip()) == (0, f"Page: {out}")
    assert f"A patient: {patient}" in out.read_text(encoding="utf-8")
    assert "TCGA-99-9999" in call("patient", run, spec, "TCGA-99-9999", "--out", out).sentence
