"""The page in a real browser: it sorts, slides, can be read by everybody and loads nothing."""

import io
import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from omnisurv.report import Fold, Section, write_report
from omnisurv.slider import Picture, Stack
from tests.browser import CONTRAST, chromium, emulate, visit

pytestmark = pytest.mark.slow
SCORES = pd.DataFrame(
    {
        "model": ["ours", "null", "cox", "forest", "absent"],
        "n": [64, 12345, 7, 64, 64],
        "value": [0.65, 0.5, 0.71, 0.65, np.nan],
        "ci_low": [-0.10, -0.25, 0.60, 0.55, np.nan],
        "ci_high": [0.70, 0.30, 0.80, 0.75, np.nan],
        **{f"a wide column {number}": ["some words"] * 5 for number in range(9)},
        "reason": ["a long reason " * 9] * 5,
    }
)


def png(grey):
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (4, 4), grey).save(stream, format="PNG")
    return stream.getvalue()


def written(folder):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3))
    figure.subplots().plot([0, 1])
    steps = [png(grey) for grey in (20, 120, 220)]
    pictures = [Picture("t1, measured", steps, (4, 4)), Picture("t2, imputed", steps, (4, 4), True)]
    stack = Stack("Axial slice", ["1 of 3", "2 of 3", "3 of 3"], pictures, start=1)
    sections = [
        Section("Scores", "Some *text*.", table=SCORES, figure=figure, caption="Below."),
        Section("One row", table=SCORES.head(1)[["model", "n"]], code="omnisurv report RUN"),
        Section("MRI", stack=stack),
        Section("Patients", "Two of them.", folds=[
            Fold(f"{name}: high predicted risk", [
                Section(f"A patient: {name}", "Some text.", table=SCORES, figure=figure),
                Section("MRI", stack=stack),
            ]) for name in ("P1", "P2")
        ]),
    ]  # fmt: skip
    return write_report(
        folder / "page.html", title="A page", sections=sections, lead="Lead.", command="omnisurv"
    )


@pytest.fixture(scope="module")
def driver():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return written(tmp_path_factory.mktemp("page"))


@pytest.fixture
def page(driver, path):
    emulate(driver)
    return visit(driver, path)


def column(page, number):
    cells = (
        "return [...document.querySelector('table').tBodies[0].rows]"
        ".map((row) => row.cells[arguments[0]].innerText)"
    )
    return page.execute_script(cells, number)


def header(page, number):
    return page.find_elements("css selector", "thead th")[number]


def keys(page, *pressed):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    for key in pressed:
        ActionChains(page).send_keys(getattr(Keys, key)).perform()


def test_it_loads_nothing_and_the_console_is_silent(page):
    assert page.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [m["params"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    urls = [params["request"]["url"] for params in asked]
    assert len(urls) >= 2  # the log works: the page itself and its pictures
    assert [url for url in urls if not url.startswith(("file:", "data:"))] == []
    refused = page.execute_async_script(
        "const done = arguments[0]; addEventListener('securitypolicyviolation',"
        "(event) => done(event.effectiveDirective));"
        "fetch('http://127.0.0.1:9/').then(() => done('loaded'), () => {});"
    )
    assert refused == "connect-src"


def test_a_click_on_a_header_sorts_and_another_turns_it_round(page):
    first = header(page, 2).find_element("tag name", "button")
    first.click()
    assert header(page, 2).get_attribute("aria-sort") == "ascending"
    assert column(page, 2) == ["0.500", "0.650", "0.650", "0.710", "–"]
    assert column(page, 0) == ["null", "ours", "forest", "cox", "absent"]  # equal: as they were
    first.click()
    assert header(page, 2).get_attribute("aria-sort") == "descending"
    assert column(page, 0) == ["cox", "ours", "forest", "null", "absent"]  # missing: still last


def test_numbers_are_compared_as_numbers_and_words_as_words(page):
    for number, order in (
        (1, ["7", "64", "64", "64", "12,345"]),
        (3, ["-0.250 – 0.300", "-0.100 – 0.700", "0.550 – 0.750", "0.600 – 0.800", "–"]),
        (0, ["absent", "cox", "forest", "null", "ours"]),
    ):
        header(page, number).find_element("tag name", "button").click()
        assert column(page, number) == order
        sorted_ = page.find_elements("css selector", "[aria-sort]")
        assert sorted_ == [header(page, number)]


@pytest.mark.parametrize("key", ["ENTER", "SPACE"])
def test_a_key_sorts_as_well(page, key):
    button = header(page, 1).find_element("tag name", "button")
    page.execute_script("arguments[0].focus()", button)
    keys(page, key)
    assert header(page, 1).get_attribute("aria-sort") == "ascending"
    assert column(page, 0) == ["cox", "ours", "forest", "absent", "null"]
    assert page.switch_to.active_element == button


def test_the_slider_shows_another_slice_of_each_picture(page):
    slider = page.find_element("css selector", "input[type=range]")
    said = page.find_element("tag name", "output")

    def shown():
        images = page.find_elements("css selector", ".steps img")
        return [image.get_attribute("alt") for image in images if image.is_displayed()]

    assert shown() == ["t1, measured, Axial slice 2 of 3", "t2, imputed, Axial slice 2 of 3"]
    page.execute_script("arguments[0].focus()", slider)
    keys(page, "ARROW_RIGHT")
    assert shown() == ["t1, measured, Axial slice 3 of 3", "t2, imputed, Axial slice 3 of 3"]
    assert said.text == slider.get_attribute("aria-valuetext") == "3 of 3"
    keys(page, "HOME")
    assert shown()[0] == "t1, measured, Axial slice 1 of 3"
    page.execute_script(
        "arguments[0].value = 2; arguments[0].dispatchEvent(new Event('input'))", slider
    )
    assert said.text == "2 of 3"


def test_the_tabulator_reaches_headers_tables_and_the_slider(page):
    reached = []
    for _ in range(40):
        keys(page, "TAB")
        told = page.execute_script(
            "const e = document.activeElement;"
            "return [e.tagName, e.innerText ?? '', getComputedStyle(e).outlineStyle]"
        )
        if told[0] == "BODY":
            break
        reached.append(tuple(told))
    names = [(tag, text) for tag, text, _ in reached]
    assert names[0] == ("A", "Skip to the content")
    assert {("BUTTON", "model"), ("BUTTON", "reason"), ("INPUT", "")} <= set(names)
    assert names.index(("BUTTON", "model")) < names.index(("INPUT", ""))
    assert [tag for tag, _ in names].count("BUTTON") == SCORES.shape[1] - 1  # one interval
    assert {style for _, _, style in reached} == {"solid"}  # where the focus is can be seen


def unfold(page):
    page.execute_script("for (const e of document.querySelectorAll('details')) e.open = true")


def test_a_patient_is_folded_until_a_key_or_a_click_opens_it(page):
    first, second = page.find_elements("tag name", "summary")
    inside = page.find_elements("css selector", "details h3")
    assert [heading.is_displayed() for heading in inside] == [False] * 4
    page.execute_script("arguments[0].focus()", first)
    keys(page, "ENTER")
    assert [heading.is_displayed() for heading in inside] == [True] * 2 + [False] * 2
    second.click()
    assert all(heading.is_displayed() for heading in inside)
    slider = page.find_elements("css selector", "details input[type=range]")[1]
    page.execute_script("arguments[0].focus()", slider)
    keys(page, "ARROW_RIGHT")
    said = [output.text for output in page.find_elements("tag name", "output")]
    assert said == ["2 of 3", "2 of 3", "3 of 3"]  # each patient's slider is its own
    keys(page, "HOME")
    page.execute_script("arguments[0].focus()", first)
    keys(page, "SPACE")
    assert not inside[0].is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(page, scheme):
    emulate(page, scheme)
    folded = len(page.execute_script(CONTRAST))
    unfold(page)
    found = page.execute_script(CONTRAST)
    assert len(found) > folded + 160 > 240
    assert found[0][0] >= 4.5, found[:5]
    ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 25, 27)"}[scheme]


def test_names_roles_and_order(page):
    assert page.find_elements("css selector", "details[open]") == []
    unfold(page)
    told = page.execute_script("""
      const all = (what) => [...document.querySelectorAll(what)];
      const ids = all('[id]').map((e) => e.id);
      return {
        lang: document.documentElement.lang,
        title: document.title,
        levels: all('h1, h2, h3, h4').map((e) => Number(e.tagName[1])),
        unnamed: all('img').filter((e) => !e.alt).length,
        unlabelled: all('input').filter((e) => !e.labels.length).length,
        mute: all('button, a').filter((e) => !e.innerText.trim()).length,
        landmarks: ['header', 'nav', 'main', 'footer'].map((e) => all(e).length),
        captions: all('table').every((e) => e.caption.textContent),
        scopes: all('th').every((e) => ['row', 'col'].includes(e.scope)),
        links: all('a').every((e) => ids.includes(e.hash.slice(1))),
        twice: ids.length - new Set(ids).size,
        small: all('button, a, input, summary').filter((e) => e.className !== 'skip'
          && e.getBoundingClientRect().height < 24).length,
        static: all('main > section:nth-of-type(2) button').length,
      };
    """)
    levels = told.pop("levels")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert told == {
        "lang": "en", "title": "A page", "unnamed": 0, "unlabelled": 0, "mute": 0,
        "landmarks": [1, 1, 1, 1], "captions": True, "scopes": True, "links": True, "twice": 0,
        "small": 0, "static": 0,
    }  # fmt: skip


def test_on_a_phone_wide_things_scroll_in_their_own_box(page):
    emulate(page, width=390)
    assert page.execute_script("return document.documentElement.scrollWidth") == 390
    wide = page.execute_script("""
      dispatchEvent(new Event('resize'));
      return [...document.querySelectorAll('.table, figure.wide')]
        .map((e) => [e.scrollWidth > e.clientWidth, e.tabIndex]);
    """)
    assert wide[:2] == [[True, 0], [True, 0]]  # figure and table, both reached by keyboard
    page.find_element("tag name", "summary").click()
    assert page.execute_script("return document.documentElement.scrollWidth") == 390
    opened = page.find_element("css selector", "details figure.wide")
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert opened.get_attribute("tabindex") == "0"
    emulate(page)
    page.execute_script("dispatchEvent(new Event('resize'))")
    figure = page.find_element("css selector", "figure.wide")
    assert figure.get_attribute("tabindex") is None


def test_in_print_all_is_open_black_on_white_and_without_controls(page):
    emulate(page, "dark", media="print")
    told = page.execute_script("""
      const style = (what) => getComputedStyle(document.querySelector(what));
      const box = document.querySelector('.table');
      return [style('nav').display, style('.control').display, style('body').backgroundColor,
        style('body').color, style('.table').overflow, box.scrollHeight - box.clientHeight,
        getComputedStyle(document.querySelector('thead button'), '::after').content];
    """)
    assert told[:4] == ["none", "none", "rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    assert told[4:] == ["visible", 0, "none"]
    visible = "return document.querySelector('details h3').checkVisibility()"
    assert page.execute_script(visible)
    emulate(page)
    assert not page.execute_script(visible)
