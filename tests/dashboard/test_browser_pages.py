"""Every page in a real browser: no error, nobody locked out, and a picture of each to look at.

One server, one browser, a light and a dark window. A page is opened from the menu, as readers do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_tools import ROOT, Window, chromium, served
from depth import LONG

from benchmarks.reading_store import NAME as MANY
from benchmarks.reading_store import fill as fill_many
from dashboard.pages import PAGES
from nas.store import Store, StudyState
from search_space.contract import EvalResult, Status
from search_space.spec import FFNSpec

pytestmark = LONG

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
NASTY = "[/x] $a$ <b> `c` **d** :smile: :red[e] -> -- &amp; <script>alert(1)</script> # h"
THEMES, WIDTHS = ("light", "dark"), (1280, 1920)

# What is Streamlit's own, and why it cannot be mended here: (rule, a part of the selector). A rule
# that axe finds broken anywhere else is red.
KNOWN = {
    (
        "color-contrast",
        ".token",
    ): "the colours of YAML in st.code: no option of the theme sets them",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory, fill, fill_with_rungs) -> Iterator[str]:
    """A server over studies in every state: one runs, one ended, one has rungs, one failed with an
    error full of marks, and one has sixty designs."""
    url = f"sqlite:///{tmp_path_factory.mktemp('board')}/nas.db"
    with Store.open(url) as store:
        fill_many(store, trials=60, points=5)  # takes an empty database
        fill(store, "runs", StudyState.RUNNING)
        fill(store, "ended", StudyState.FINISHED)
        fill_with_rungs(store, "rungs")
        study = store.create_study("a_b--c", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        more = {"seed": 0, "source": NASTY, "params": {}, "until_flops": 1.0, "cost": {}}
        _, begun = store.add_trial(study.id, FFNSpec(d_ff=8), **more)
        store.end_evaluation(EvalResult(evaluation=begun.id, status=Status.FAILED, error=NASTY))
        store.update_study(study.id, state=StudyState.FAILED)
    with served(url) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """One for all."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def windows(browser, address) -> dict[str, Window]:
    """A window of each theme, open at the default page and the study of many designs."""
    found = {}
    for theme in THEMES:
        size = {"width": WIDTHS[0], "height": 900}
        context = browser.new_context(viewport=size, color_scheme=theme, reduced_motion="reduce")
        found[theme] = Window(context.new_page(), address)
        found[theme].page.goto(f"{address}/?study={MANY}")
        found[theme].settle()
    return found


# Tests of one page follow one another: visits are most of the time.
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path, scope="module")


def visit(window: Window, page) -> None:
    """Choose a page from the menu, unless the window is there."""
    path = "/" if page.default else f"/{page.path}"
    if window.page.evaluate("location.pathname") != path:
        links = window.page.locator("[data-testid=stSidebarNavLink]")
        links.filter(has_text=page.title).first.click()
        window.page.wait_for_function("(path) => location.pathname === path", arg=path)
    window.settle()


@pytest.mark.parametrize("theme", THEMES)
@every_page
def test_a_page_draws_without_an_error_fits_and_shuts_nobody_out(
    page, theme: str, windows: dict[str, Window], tmp_path: Path
) -> None:
    window = windows[theme]
    window.wrong.clear()
    visit(window, page)
    assert window.page.get_by_test_id("stMainBlockContainer").inner_text().strip(), "an empty page"
    folder = Path(os.environ.get("NAS_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    for width in reversed(WIDTHS):
        window.page.set_viewport_size({"width": width, "height": 900})
        window.page.wait_for_timeout(150)  # charts follow the window's size
        for _ in range(20):  # in their own time
            if not (wide := window.page.evaluate(OVERFLOW)):
                break
            window.page.wait_for_timeout(250)
        assert wide == [], f"wider than the window of {width}: {wide}"
        picture = folder / f"{page.path}-{theme}-{width}.png"
        picture.write_bytes(window.page.screenshot(full_page=False))
    assert window.wrong == []
    assert window.page.locator("[data-testid=stException]").count() == 0
    if not AXE.exists():
        pytest.skip("drawn, and not asked by axe-core, which is not installed: npm ci")
    if not window.page.evaluate("() => Boolean(window.axe)"):
        window.page.evaluate(AXE.read_text())
    found = window.page.evaluate(AUDIT)
    assert [each for each in found if not known(each)] == []


OVERFLOW = """() => {
  const main = document.querySelector('[data-testid=stMain]');
  const found = main.scrollWidth > main.clientWidth + 1 ? ['the page'] : [];
  return document.documentElement.scrollWidth > innerWidth + 1 ? [...found, 'the window'] : found;
}"""


def known(found: dict[str, str]) -> bool:
    """Whether a violation is Streamlit's own, which `KNOWN` lists."""
    return any(found["rule"] == rule and part in found["where"] for rule, part in KNOWN)


AUDIT = """async () => {
  const found = await axe.run(document, {resultTypes: ['violations']});
  return found.violations
      .filter((each) => ['serious', 'critical'].includes(each.impact))
      .flatMap((each) => each.nodes.map((node) => ({
        rule: each.id, where: node.target.flat().join(' '), what: node.html.slice(0, 300),
        why: node.failureSummary.slice(0, 300)})));
}"""


@every_page
def test_the_keyboard_alone_reaches_every_control(page, windows: dict[str, Window]) -> None:
    window = windows["light"]
    visit(window, page)
    window.page.mouse.move(0, 0)  # what is under the mouse looks chosen, too
    controls = window.page.evaluate(LISTEN)
    assert controls > 0
    missed, dim = [], []
    for turn in range(4):  # a table takes some, and so does what may scroll
        for _ in range(controls if turn == 0 else 25):
            window.page.keyboard.press("Tab")
        missed, dim = window.page.evaluate(REACHED)
        if not missed:
            break
    assert missed == [], f"Tab does not reach {len(missed)} of {controls} controls"
    assert dim == [], f"the focus does not show on {len(dim)} of {controls} controls"


# A control's looks before and under the focus: an outline, a shadow, a border or a colour changes,
# on itself or on what is drawn around it.
LISTEN = """() => {
  if (!window.looks) {
    const style = document.createElement('style');
    style.textContent = '* { transition: none !important; animation: none !important }';
    document.head.appendChild(style);
    window.looks = (element) => {
      const found = [];
      for (let at = element, up = 0; at && up < 4; at = at.parentElement, up += 1) {
        const own = getComputedStyle(at);
        found.push(own.outlineStyle, own.outlineWidth, own.boxShadow, own.borderColor,
                   own.backgroundColor, own.color);
      }
      for (const inner of element.parentElement.querySelectorAll('*')) {
        const own = getComputedStyle(inner);
        found.push(own.outlineStyle, own.boxShadow, own.borderColor, own.backgroundColor);
      }
      return found.join();
    };
    document.addEventListener('focusin', (event) => {
      const at = event.composedPath()[0];
      if (window.before?.has(at)) window.seen.set(at, window.looks(at));
    });
  }
  document.activeElement?.blur();
  const all = document.querySelectorAll(
      'a[href], button, input, select, textarea, summary, [tabindex]');
  const groups = new Set();
  const free = [...all].filter((element) => {
    const box = element.getBoundingClientRect();
    const shown = element.checkVisibility({visibilityProperty: true});
    if (element.tabIndex < 0 || element.disabled || !shown) return false;
    if (element.tagName === 'MAIN') return false;  // takes keys to scroll, and is no control
    if (!box.width || !box.height || element.closest('[inert], [aria-hidden=true]')) return false;
    const group = element.type === 'radio' ? element.name : element.closest('[role=radiogroup]');
    if (!group) return true;
    // Of such a group Tab reaches the chosen one; arrows do the rest.
    const chosen = element.checked || element.getAttribute('aria-checked') === 'true';
    return chosen && !groups.has(group) && Boolean(groups.add(group));
  });
  window.before = new Map(free.map((element) => [element, window.looks(element)]));
  window.seen = new Map();
  window.getSelection().removeAllRanges();
  return free.length;
}"""
REACHED = """() => {
  const words = (element) => `${element.tagName} ${element.className?.baseVal ?? element.className}`
      + ` ${element.getAttribute('aria-label') || element.innerText || ''}`.slice(0, 60);
  const there = [...window.before.keys()].filter((element) => element.isConnected);
  return [there.filter((element) => !window.seen.has(element)).map(words),
          // A table draws the ring around its cell into its own picture.
          there.filter((element) => element.tagName !== 'CANVAS'
              && window.seen.get(element) === window.before.get(element)).map(words)];
}"""


@pytest.mark.parametrize("study", ["runs", "ended", "rungs", "a_b--c"])
def test_a_study_in_any_state_draws_on_every_page(study: str, windows: dict[str, Window]) -> None:
    window = windows["light"]
    window.wrong.clear()
    box = window.page.get_by_test_id("stSidebar").get_by_test_id("stSelectbox").locator("input")
    box.click()
    window.page.get_by_role("option", name=study, exact=True).click()
    window.page.wait_for_function(
        "(study) => new URLSearchParams(location.search).get('study') === study",
        arg=study,
    )
    for page in PAGES:
        visit(window, page)
        assert window.page.locator("[data-testid=stException]").count() == 0, page.path
        assert window.page.locator("main script, main b:text-is('d')").count() == 0, page.path
    assert window.wrong == []


def test_a_link_opens_page_and_study(browser, address: str) -> None:
    assert MANY != "rungs"
    page = next(page for page in PAGES if not page.default)
    window = Window(browser.new_page(), address)
    window.page.goto(f"{address}/{page.path}?study=rungs")
    window.settle()
    box = window.page.get_by_test_id("stSidebar").get_by_test_id("stSelectbox")
    assert "rungs" in box.inner_html()
    window.page.wait_for_function("() => window.Plotly")
    assert window.page.evaluate(KEPT_BACK) == [], "kinds of trace that are not what they are called"
    assert window.wrong == []
    window.page.close()


KEPT_BACK = """() => {
  const found = Object.entries(window.ffnNasTraces);
  if (found.length < 40) return ['too few'];
  return found.filter(([name, make]) => make().name !== name || make().moduleType !== 'trace')
      .map(([name]) => name);
}"""
