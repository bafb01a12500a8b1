"""report.html in a real headless browser: phone and desk, light and dark, and on paper.

Skipped where there is no Chromium; `.ci/install` tries to install one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lm_eval_iberian.pictures.write import write_report
from tests.lm_eval_iberian import browser
from tests.lm_eval_iberian.browser import Browser, Page
from tests.lm_eval_iberian.sweep_maker import MadePoint, figure1_run, write_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.find() is None, reason="no Chromium here: apt-get install chromium"),
]

# Texts of one picture that lie on each other, by more than a pixel both ways.
OVERLAPS = """[...document.querySelectorAll('svg[role=img]')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].filter(one => one.textContent.trim() && one.textContent != '‡')
    .map(one => [one.textContent, one.getBoundingClientRect()]);
  return boxes.flatMap(([a, x], i) => boxes.slice(i + 1).filter(([b, y]) =>
    Math.min(x.right, y.right) - Math.max(x.left, y.left) > 1 &&
    Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top) > 1).map(([b, y]) => [svg.getAttribute('aria-labelledby'), a, b]));
})"""
# Texts of a picture that its frame cuts off.
CUT = """[...document.querySelectorAll('svg[role=img]')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(one => { const box = one.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  }).map(one => [svg.getAttribute('aria-labelledby'), one.textContent]);
})"""
# Every element with a text of its own whose colour has less contrast to its background than WCAG's AA asks for.
PALE = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = '#000'; canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = element => { for (let one = element; one; one = one.parentElement) {
    const colour = rgba(getComputedStyle(one).backgroundColor); if (colour[3] == 255) return colour; } return [255, 255, 255, 255]; };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    if (![...element.childNodes].some(node => node.nodeType == 3 && node.textContent.trim())) continue;
    const look = getComputedStyle(element), inside = element instanceof SVGElement;
    if (['TITLE', 'DESC'].includes(element.tagName.toUpperCase()) || !element.checkVisibility()) continue;
    const [a, b] = [light(rgba(inside ? look.fill : look.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([element.tagName, element.textContent.slice(0, 40), ratio]);
  }
  return found;
})()"""
SMALL = "[...document.querySelectorAll('svg[role=img] text')].map(one => one.getBoundingClientRect().height).filter(h => h > 0).sort((a, b) => a - b)[0]"
OPEN_ALL = "document.querySelectorAll('details').forEach(one => { one.open = true; })"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it: two languages, methods, a failed and a flagged point."""
    folder = figure1_run(
        tmp_path_factory.mktemp("run"), weights=("0.5", "1.0", "2.0"), documents=10,
        states={"language=gl method=linear weight=2.0": "failed"},
        flags={"language=eu method=task_arithmetic weight=2.0": {"ifeval_eu": ["75% of the answers loop"]}},
    )  # fmt: skip
    return write_report(folder)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(params=[(390, 844, False), (390, 844, True), (1280, 900, False), (1280, 900, True)],
                ids=["phone", "phone dark", "desk", "desk dark"])  # fmt: skip
def page(request: pytest.FixtureRequest, chromium: Browser, report: Path) -> Page:
    return chromium.open(report, *request.param)


def test_the_page_in_a_browser(page: Page, report: Path) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= page.width
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate(CUT) == []
    assert page.evaluate(PALE) == []
    assert page.evaluate(SMALL) >= 9, "texts of pictures must be readable, in CSS pixels"
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.width
    assert page.evaluate(PALE) == []
    assert page.requests == [report.resolve().as_uri()]
    assert page.complaints == []


def test_the_theme_follows_the_reader(chromium: Browser, report: Path) -> None:
    colours = {dark: chromium.open(report, 390, 844, dark).evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('svg[role=img] text')).fill]")
        for dark in (False, True)}  # fmt: skip
    assert colours[False][0] != colours[True][0] and colours[False][1] != colours[True][1]


def test_scripts_do_not_run(chromium: Browser, tmp_path: Path, report: Path) -> None:
    """Even where an escape were forgotten: the page's policy forbids scripts and requests."""
    broken = report.read_text().replace(
        "</main>",
        '<script>document.title = "ran"</script><img src="file:///etc/hostname" onerror="document.title = 1"></main>',
    )
    (tmp_path / "broken.html").write_text(broken)
    page = chromium.open(tmp_path / "broken.html", 390, 844)
    assert page.evaluate("document.title") == "figure1: a sweep of merges"
    assert any("Content Security Policy" in said for said in page.complaints)
    assert page.requests[1:] == page.blocked == ["file:///etc/hostname"]


def test_every_wide_table_can_be_reached_by_keyboard(chromium: Browser, report: Path) -> None:
    page = chromium.open(report, 390, 844)
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(one => one.tabIndex == 0 && one.ariaLabel)")
    assert page.evaluate("[...document.querySelectorAll('nav a')].every(one => document.querySelector(one.hash))")


def test_the_page_on_paper(chromium: Browser, report: Path, tmp_path: Path) -> None:
    pdf = chromium.open(report, 1280, 900, dark=True).print(tmp_path / "page.pdf")
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 50_000


def test_paper_is_white_for_those_who_read_in_the_dark(chromium: Browser, report: Path) -> None:
    page = chromium.open(report, 794, 1123, dark=True)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    chromium.call("Emulation.setEmulatedMedia", page.session, media="print", features=dark)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(PALE) == []


SHOWN = "[...document.querySelectorAll('{}')].filter(one => one.checkVisibility()).map(one => one.dataset.language)"
CHOOSE = """(([facet, value]) => {{ const one = document.querySelector(`select[data-facet=${{facet}}]`);
  one.value = value; one.dispatchEvent(new Event('change', {{bubbles: true}})); }})({})"""
# The first column of the first table of scores, and its figures in the third.
COLUMN = """[...document.querySelector('#tables table').tBodies[0].rows].map(row => [row.cells[0].firstChild.textContent.trim(),
  parseFloat(row.cells[2].textContent)])"""


def test_filtering_by_language_and_benchmark(chromium: Browser, report: Path) -> None:
    page = chromium.open(report, 1280, 900)
    assert set(page.evaluate(SHOWN.format("figure"))) == {"eu", "gl"}
    page.evaluate(CHOOSE.format('["language", "gl"]'))
    assert set(page.evaluate(SHOWN.format("figure, #tables td[data-language], .heat th[data-language]"))) == {"gl"}
    assert not page.evaluate(
        "[...document.querySelectorAll('#curves h3')].find(h => h.textContent == 'Basque').checkVisibility()"
    )
    page.evaluate(CHOOSE.format('["benchmark", "EusTrivia"]'))  # Basque only: together nothing
    assert page.evaluate(SHOWN.format("figure")) == []
    assert not page.evaluate("document.querySelector('#curves').checkVisibility()")
    assert not page.evaluate("document.querySelector('nav a[href=\"#curves\"]').checkVisibility()")
    assert page.evaluate("document.querySelector('#signatures').checkVisibility()")
    page.evaluate(CHOOSE.format('["language", ""]'))
    page.evaluate(CHOOSE.format('["benchmark", ""]'))
    assert page.evaluate("document.querySelectorAll('.off').length") == 0


def test_sorting_a_table(chromium: Browser, report: Path) -> None:
    page = chromium.open(report, 1280, 900)
    before = page.evaluate(COLUMN)
    press = "document.querySelector('#tables table').tHead.rows[0].cells[2].querySelector('button').click()"
    page.evaluate(press)
    figures = [value for _, value in page.evaluate(COLUMN)]
    assert before[-1][0] == page.evaluate(COLUMN)[-1][0] == "chance", "chance is no model: it stays last"
    assert (
        figures[:-1] == sorted((value for _, value in before[:-1]), reverse=True) != [value for _, value in before[:-1]]
    )
    page.evaluate(press)
    assert [value for _, value in page.evaluate(COLUMN)][:-1] == sorted(value for _, value in before[:-1])
    assert page.evaluate("document.querySelector('#tables table').tHead.rows[0].cells[2].ariaSort") == "ascending"


def test_two_rows_beside_each_other(chromium: Browser, report: Path) -> None:
    page = chromium.open(report, 1280, 900)
    said = page.evaluate("[...document.querySelectorAll('#between tbody tr')].map(row => row.cells[0].textContent)")
    assert said == ["weights: merge"], "all were measured alike"
    page.evaluate("""(() => { const [a, b] = document.querySelectorAll('#between select'); b.selectedIndex = a.selectedIndex;
      b.dispatchEvent(new Event('change', {bubbles: true})); })()""")
    assert "One measurement" in page.evaluate("document.querySelector('#between').textContent")


def test_a_link_to_a_point_opens_what_is_folded(chromium: Browser, tmp_path: Path) -> None:
    folder = figure1_run(
        tmp_path, languages=("eu",), methods=("linear",), weights=[f"{n}.0" for n in range(1, 18)], documents=3
    )
    page = chromium.open(write_report(folder), 1280, 900)
    anchor = "point-language=eu_method=linear_weight=9.0"
    assert not page.evaluate(f"document.getElementById('{anchor}').checkVisibility()")
    page.evaluate(f"location.hash = '{anchor}'; new Promise(done => setTimeout(done, 200))")
    assert page.evaluate(f"document.getElementById('{anchor}').checkVisibility()")
    assert page.evaluate("new Set([...document.querySelectorAll('tr.here')].map(row => row.dataset.point)).size") == 1
    assert page.evaluate("document.querySelectorAll('tr.here').length") >= 3, "in every table"


def test_without_the_script_all_is_said(chromium: Browser, report: Path, tmp_path: Path) -> None:
    """Nothing is shown that only a script can use, and nothing is hidden."""
    plain = tmp_path / "plain.html"
    plain.write_text(report.read_text().replace("<script>", "<script>// changed, so that the policy stops it\n"))
    page = chromium.open(plain, 390, 844)
    assert any("Content Security Policy" in said for said in page.complaints)
    assert (
        page.evaluate("[...document.querySelectorAll('select, button')].filter(one => one.checkVisibility()).length")
        == 0
    )
    assert page.evaluate("document.querySelector('table.apart').rows.length") > 2
    assert page.evaluate("document.documentElement.scrollWidth") <= page.width


def test_curves_stand_beside_each_other_where_they_fit(chromium: Browser, tmp_path: Path) -> None:
    """Languages with one panel each: one row on a desk, one below another on a phone."""
    points = [MadePoint(f"w={weight}", labels={"w": weight}) for weight in ("0.5", "1.0")]
    tasks = ["iberian_eus_trivia", "ifeval_gl", "iberian_belebele_ca"]
    file = write_report(write_run(tmp_path, "x", {"w": ["0.5", "1.0"]}, points, tasks, lambda *_: 0.6, 8))
    tops = "[...document.querySelectorAll('#curves figure')].map(one => Math.round(one.getBoundingClientRect().top))"
    lefts = tops.replace(".top", ".left")
    for width, height, in_a_row in ((1280, 900, 3), (900, 900, 2), (390, 844, 1)):
        page = chromium.open(file, width, height)
        assert len(page.evaluate(lefts)) == 3 and len(set(page.evaluate(lefts))) == in_a_row
        assert len(set(page.evaluate(tops))) == -(-3 // in_a_row)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT) == []


def test_the_result_is_seen_first(chromium: Browser, report: Path) -> None:
    page = chromium.open(report, 1280, 900)
    box = page.evaluate("document.querySelector('.result').getBoundingClientRect().toJSON()")
    assert (
        0 < box["top"] < 200 and page.evaluate("document.querySelector('.result').textContent").count("told apart") == 6
    )
    page.evaluate(CHOOSE.format('["language", "gl"]'))
    assert set(page.evaluate(SHOWN.format(".result li"))) == {"gl"}
