import base64
import hashlib
import html.parser

import numpy as np
import pandas as pd
import pytest

from omnisurv.report import LIMITS, Fold, Section, installed_versions, write_report
from omnisurv.slider import Picture, Stack

EVIL = '<script>alert("x")</script> & $title'


@pytest.fixture
def figure():
    from matplotlib.figure import Figure

    drawn = Figure()
    drawn.subplots().plot([0, 1])
    return drawn


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and text, and notices what is not closed."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page(tmp_path, *sections, **rest):
    path = write_report(tmp_path / "report.html", title="A report", sections=sections, **rest)
    return Page(path.read_text(encoding="utf-8"))


def test_everything_is_escaped(tmp_path, figure):
    table = pd.DataFrame({EVIL: [EVIL, "b"]})
    section = Section(EVIL, EVIL, table=table, figure=figure, alt=EVIL + '"', caption=EVIL)
    path = write_report(
        tmp_path / "r.html",
        title=EVIL,
        sections=[section],
        lead=EVIL,
        command=EVIL,
        versions={EVIL: EVIL},
    )
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    assert text.count("<script") == 1  # our own, at the end
    assert len(found.named("script")) == 1
    assert found.text.count('<script>alert("x")</script> & $title') >= 8
    assert found.named("img")[0]["alt"] == EVIL + '"'


def test_page_loads_nothing_from_elsewhere(tmp_path, figure):
    found = page(tmp_path, Section("Figure", figure=figure), command="omnisurv demo")
    assert not found.open
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object")
        assert "src" not in attributes or tag == "img"
        assert attributes.get("href", "#").startswith("#")
    source = found.named("img")[0]["src"]
    kind, data = source.split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    assert b"<svg" in base64.b64decode(data)
    policy = found.named("meta")[1]["content"]
    script = next(word for word in found.words if "use strict" in word)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy
    style = next(word for word in found.words if "color-scheme" in word)
    assert "url(" not in style
    assert "http" not in script + style
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style


def test_page_can_be_read_by_machines_and_by_keyboard(tmp_path, figure):
    table = pd.DataFrame({"n": [1]})
    found = page(tmp_path, Section("Who", figure=figure, table=table), Section("Who"))
    assert found.named("html")[0]["lang"] == "en"
    anchors = [attributes["id"] for attributes in found.named("section")]
    assert len(set(anchors)) == 2
    links = [attributes["href"].removeprefix("#") for attributes in found.named("a")]
    ids = {attributes["id"] for _, attributes in found.tags if "id" in attributes}
    assert set(links) <= ids
    assert found.named("img")[0]["alt"] == "Who"
    scrolls = next(a for a in found.named("div") if a.get("class") == "table")
    assert (scrolls["tabindex"], scrolls["role"]) == ("0", "region")
    assert found.named("th")[0]["scope"] == "col"
    assert "Who" in found.text
    assert len(found.named("caption")) == 1


def test_numbers_are_aligned_and_rounded(tmp_path):
    table = pd.DataFrame(
        {
            "model": ["a", "b", "c"],
            "n": [64, 12345, 1],
            "value": [0.81234, 1e-7, np.nan],
            "ci_low": [0.7, np.nan, 0.1],
            "ci_high": [0.9, np.nan, 0.2],
            "better": [True, False, True],
        }
    )
    found = page(tmp_path, Section("Scores", table=table))
    assert "model n value 95% CI better" in found.text
    assert "a 64 0.812 0.700 – 0.900 yes" in found.text
    assert "b 12,345 1.00e-07 – no" in found.text
    assert "c 1 – 0.100 – 0.200 yes" in found.text
    heads = [attributes for attributes in found.named("th") if attributes["scope"] == "col"]
    numeric = [attributes.get("class") for attributes in heads]
    assert numeric == [None, "number", "number", None, None]


def test_text_is_split_into_paragraphs(tmp_path):
    found = page(tmp_path, Section("Text", "One.\n\nTwo\nlines.\n\n\n"))
    assert len(found.named("p")) == 2 + 2  # and versions, limits


def test_limits_command_and_versions_are_told(tmp_path):
    found = page(tmp_path, command="omnisurv demo --out x")
    assert LIMITS in found.text
    assert "not for clinical use" in found.text
    assert "omnisurv demo --out x" in found.text
    assert f"torch {installed_versions()['torch']}" in found.text


def test_same_content_gives_the_same_file(tmp_path):
    from matplotlib.figure import Figure

    def text(name):
        drawn = Figure()
        drawn.subplots().bar([0, 1], [1, 2])
        path = write_report(tmp_path / name, title="t", sections=[Section("a", figure=drawn)])
        return path.read_text(encoding="utf-8")

    assert text("a.html") == text("b.html")


def test_what_is_in_front_heads_its_row_and_long_texts_are_broken(tmp_path):
    table = pd.DataFrame({"model": ["a"], "n": [1], "reason": ["because " * 20]})
    found = page(tmp_path, Section("Scores", table=table), Section("More", table=table[["n"]]))
    rows = [attributes for attributes in found.named("th") if attributes["scope"] == "row"]
    assert len(rows) == 1
    assert [attributes.get("class") for attributes in found.named("td")] == [
        "number", "long", "number",
    ]  # fmt: skip


def test_a_stack_shows_its_start_and_hides_the_slider_without_a_script(tmp_path):
    steps = [b"one", b"two", b"three"]
    pictures = [Picture("t1 & co", steps, (4, 2)), Picture("t2", steps, (4, 2), imputed=True)]
    stack = Stack("Axial slice", ["1 of 3", "2 of 3", "3 of 3"], pictures, start=1)
    found = page(tmp_path, Section("MRI", stack=stack))
    images = found.named("img")
    assert [image["alt"] for image in images[:2]] == [
        "t1 & co, Axial slice 1 of 3", "t1 & co, Axial slice 2 of 3",
    ]  # fmt: skip
    assert ["hidden" in image for image in images] == [True, False, True] * 2
    assert images[1]["src"] == "data:image/png;base64," + base64.b64encode(b"two").decode()
    assert images[0]["style"] == "aspect-ratio:4/2"
    (slider,) = found.named("input")
    assert (slider["type"], slider["min"], slider["max"], slider["value"]) == (
        "range",
        "1",
        "3",
        "2",
    )
    assert found.named("label")[0]["for"] == slider["id"]
    assert next(a for a in found.named("div") if a.get("class") == "control")["hidden"] is None
    framed = [a["class"] for a in found.named("figure")]
    assert framed == ["picture", "picture imputed"]


def test_code_is_shown_as_it_is(tmp_path):
    path = write_report(tmp_path / "r.html", title="t", sections=[Section("How", code="a <b>\nc")])
    assert "<pre><code>a &lt;b&gt;\nc</code></pre>" in path.read_text(encoding="utf-8")


def test_folds_are_closed_and_have_headings_and_anchors_of_their_own(tmp_path, figure):
    stack = Stack("Slice", ["1 of 1"], [Picture("t1", [b"x"], (1, 1))])
    inside = [Section("Scores", EVIL, figure=figure), Section("MRI", stack=stack)]
    folds = [Fold(EVIL, inside), Fold("P2", [inside[0]])]
    found = page(tmp_path, Section("Patients", "All of them.", folds=folds), Section("Scores"))
    assert not found.open
    assert found.named("details") == [{"id": "s1f1"}, {"id": "s1f2"}]  # none is open
    assert [tag for tag, _ in found.tags if tag == "summary"] == ["summary"] * 2
    assert EVIL in found.words
    ids = [attributes["id"] for attributes in found.named("section")]
    assert ids == ["s1-patients", "s1f1s1-scores", "s1f1s2-mri", "s1f2s1-scores", "s2-scores"]
    titles = [attributes["id"] for attributes in found.named("h3")]
    assert titles == [f"{name}-title" for name in ids[1:4]]
    (slider,) = found.named("input")
    assert slider["id"] == "s1f1s2-mri-slider"
    assert {"href": "#s1f1s1-scores"} not in found.named("a")  # contents are of the first level
