"""report.html as a parser and a browser see it: one file that asks nobody for anything, readable by everyone."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import urlparse

import pytest

from safety_spaces.evidence.report import write_report
from safety_spaces.study.corpora import World
from tests.browser import NAMES, browser, find_browser
from tests.evidence.studies import premises, selectivity, study_of, verdicts
from tests.evidence.test_report import ANSWERS, RECORD

VOID = {"meta", "link", "br", "img", "hr", "input"}
ADDRESSES = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")


class Reader(HTMLParser):
    """Elements in order, with attributes and text; AssertionError where one is not closed or nested wrongly."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self._open = [], []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), (tag, attributes)
        self.elements.append({"tag": tag, "text": "", "within": [one["tag"] for one in self._open], **dict(attributes)})
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        self.elements.append({"tag": tag, "text": "", "within": [one["tag"] for one in self._open], **dict(attributes)})

    def handle_endtag(self, tag):
        assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for one in self._open:
            one["text"] += data

    def named(self, *tags):
        return [one for one in self.elements if one["tag"] in tags]


@pytest.fixture(scope="module")
def page(tables, tmp_path_factory):
    """The page of a study with a world of its own, with every kind of figure, table and answer."""
    from tests.evidence.conftest import GRID

    grid = replace(GRID, scored=GRID.scored[2:], percentiles=(0.7,), tasks=("useful", "contaminated"))
    folder = tmp_path_factory.mktemp("page")
    write_report(
        study_of(grid, world=World.model_construct()), tables, verdicts=verdicts(), premises=premises(),
        selectivity=selectivity(grid), record=RECORD, answers=ANSWERS, folder=folder, sources_changed=True,
    )  # fmt: skip
    return folder / "report.html"


@pytest.fixture(scope="module")
def read(page):
    return Reader(page.read_text("utf-8"))


def test_it_names_no_place_outside_itself(page, read):
    for one in read.elements:
        for address in (one[name] for name in ADDRESSES if one.get(name)):
            assert address.startswith("#") or urlparse(address).scheme == "data", (one["tag"], address[:80])
    assert not re.search(r"url\((?!#)|@import|https?:|//\w", re.sub(r"data:[^\"]*", "", page.read_text("utf-8")))
    assert not read.named("iframe", "object", "embed", "form", "base")


def test_its_policy_forbids_everything_but_its_own_script_and_look(read):
    (policy,) = [one for one in read.named("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy["content"].split(";"))
    (script,) = read.named("script")
    digest = base64.b64encode(hashlib.sha256(script["text"].encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "script-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    before = read.elements[: read.elements.index(policy)]
    assert {one["tag"] for one in before} <= {"html", "head", "meta"}
    assert not [name for one in read.elements for name in one if name.startswith("on")]


def test_ids_are_unique_and_what_points_to_one_finds_it(page, read):
    ids = [one["id"] for one in read.elements if "id" in one]
    assert len(ids) == len(set(ids))
    used = [one[name].removeprefix("#") for one in read.elements for name in ("href", "xlink:href", "aria-describedby")
            if one.get(name) and not one[name].startswith("data:")]  # fmt: skip
    used += re.findall(r"url\(#([^)]+)\)", page.read_text("utf-8"))
    assert set(used) <= set(ids)


def test_every_figure_has_a_text_alternative_and_a_caption(read):
    figures, pictures = read.named("figure"), read.named("svg")
    assert len(figures) == len(pictures) == 10
    captions = {one["id"]: one["text"] for one in read.named("figcaption")}
    for picture in pictures:
        assert picture["role"] == "img"
        assert len(picture["aria-label"]) > 5
        assert "3 seeds" in captions[picture["aria-describedby"]]


def test_every_table_has_a_caption_and_headings(read):
    tables = read.named("table")
    assert len(tables) == len(read.named("caption")) == len(read.named("thead")) > 6
    assert all(one["scope"] == "col" for one in read.named("th"))
    assert all(one["text"].strip() for one in [*read.named("caption"), *read.named("th")])


def test_it_says_its_language_its_size_and_its_title(read):
    assert read.named("html")[0]["lang"] == "en"
    assert [one["text"] for one in read.named("title")] == ["tiny: what the experiments found"]
    assert "width=device-width" in [one.get("content", "") for one in read.named("meta")][2]
    assert [one["tag"] for one in read.named("h1", "h2")][:2] == ["h1", "h2"]


def test_the_reader_sees_what_is_wrong():
    for wrong in ("<p><b></p></b>", "<div>", "<a id=1 id=2></a>"):
        with pytest.raises(AssertionError):
            Reader(wrong)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    program = find_browser()
    if program is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    with browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def complaints(tab):
    kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    return [event for event in tab.events if event.get("method") in kinds]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_it_renders_without_complaint_and_asks_nobody(tab, page, width):
    tab.open(page, width=width)
    requests = [
        event["params"]["request"]["url"] for event in tab.events if event.get("method") == "Network.requestWillBeSent"
    ]
    assert complaints(tab) == []
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    boxes = tab.value("[...document.querySelectorAll('svg')].map(one => [one.getBoundingClientRect().width, "
                      "one.getBoundingClientRect().height, one.querySelectorAll('path').length])")  # fmt: skip
    assert len(boxes) == 10
    assert all(wide >= 500 and high > 100 and paths > 10 for wide, high, paths in boxes)
    # What is wider than the page scrolls in a box of its own.
    assert tab.value("document.documentElement.scrollWidth") == width
    assert tab.screenshot().startswith(b"\x89PNG")
    assert tab.value("document.querySelectorAll('main script, main b').length") == 0


COLUMN = "[...document.querySelector('table').tBodies[0].rows].map(row => row.cells[3].textContent.trim())"
EFFECTS = ("+0.04", "+0.15", "−0.20")


@pytest.mark.browser
def test_a_table_sorts_by_click_and_by_keyboard(tab, page):
    tab.open(page, width=1280)
    found = lambda: [cell.split(" ")[0] for cell in tab.value(COLUMN)]  # noqa: E731
    assert found() == [*EFFECTS, ""]
    heading = "document.querySelector('table th:nth-child(4)')"
    tab.value(f"{heading}.querySelector('button').click()")
    assert found() == ["−0.20", "+0.04", "+0.15", ""]
    assert tab.value(f"{heading}.getAttribute('aria-sort')") == "ascending"
    tab.value(f"{heading}.querySelector('button').focus()")
    tab.press("Enter")
    assert found() == ["", "+0.15", "+0.04", "−0.20"]
    assert tab.value("document.querySelectorAll('[aria-sort]').length") == 1
    assert tab.value(f"{heading}.getAttribute('aria-sort')") == "descending"
    assert complaints(tab) == []


@pytest.mark.browser
def test_answers_are_folded_away_until_they_are_opened(tab, page):
    tab.open(page, width=390)
    seen = "document.querySelector('.reply pre').checkVisibility()"
    assert tab.value(seen) is False
    tab.value("document.querySelector('#answers summary').click()")
    assert tab.value(seen) is True
    assert tab.value("document.querySelector('.reply pre').textContent") == "<script>alert(1)</script>"


@pytest.mark.browser
def test_an_address_outside_the_file_is_refused(tab, page, tmp_path):
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(
        page.read_text("utf-8").replace("<main>", '<main><img src="https://example.org/x.png"><script>1</script>')
    )
    tab.open(spoilt, width=1280)
    assert len([event for event in complaints(tab) if "Content Security Policy" in str(event)]) >= 2


@pytest.mark.browser
def test_it_prints(tab, page):
    tab.open(page, width=1280)
    assert tab.pdf().startswith(b"%PDF")
