"""A study from its form to an exported model, by clicking alone, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from actions_tools import furnish, study_text
from browser_tools import Window, chromium, served
from depth import LONG

from dashboard.actions.process import Actions

pytestmark = LONG

MAIN = "[data-testid=stMain]"


@pytest.fixture
def window(tmp_path: Path, monkeypatch) -> Iterator[Window]:
    """The page Launch of a server in a folder where there is no database yet."""
    furnish(tmp_path, monkeypatch)
    Path("upload.yaml").write_text(study_text())
    url = "sqlite:///nas.db"
    with served(url) as address, chromium() as browser:
        window = Window(browser.new_page(viewport={"width": 1400, "height": 1200}), address)
        try:
            window.page.goto(f"{address}/launch")
            yield window
        finally:
            for action in Actions(url, tmp_path).all():
                action.cancel()


def press(page, name: str) -> None:
    """Click the button of the page's main part, once it can be clicked."""
    page.locator(MAIN).get_by_role("button", name=name, exact=True).click()


def go(page, title: str) -> None:
    """Choose a page from the menu."""
    page.get_by_test_id("stSidebarNavLink").filter(has_text=title).first.click()
    page.wait_for_url(f"**/{'' if title == 'Frontier' else title.lower()}?*")


def test_a_study_from_the_form_to_a_model(window: Window) -> None:
    page = window.page
    page.get_by_text("Begin with a file, or with an earlier study").click()
    page.locator("input[type=file]").set_input_files("upload.yaml")
    page.locator(MAIN).get_by_text("name: tiny").wait_for()  # its file, as the form has it
    press(page, "Launch")

    page.wait_for_url("**/live?study=tiny*")
    page.get_by_text("This study is finished").wait_for()

    go(page, "Frontier")
    chart = page.locator(".ffn-nas-chart").first
    chart.locator(".nsewdrag").first.wait_for()
    window.settle()  # the chart is where it stays, and hears the mouse
    box = chart.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] - 3, steps=5)
    page.mouse.up()
    press(page, "Compare")

    page.wait_for_url("**/compare?*")
    page.locator(MAIN).get_by_text("95%").first.wait_for()
    numbers = page.url.partition("trials=")[2].partition("&")[0]
    assert numbers.count("%2C") or numbers.count(","), page.url

    go(page, "Export")
    page.locator(MAIN).get_by_text("Check it in a fresh process").click()
    press(page, "Export")
    page.locator(MAIN).get_by_text("from_pretrained").first.wait_for()
    (model,) = Path().glob("tiny-trial-*/model.safetensors")
    assert model.stat().st_size > 0
    assert page.locator("[data-testid=stException]").count() == 0
    assert window.wrong == []
