"""The page in a real browser, at the width of a phone and of a desktop: it fits, logs nothing and requests nothing.

Derivation: a page wider than its window scrolls sideways; console messages, requests and elements made from model text
are what a browser itself reports to playwright.

Not exercised: other browsers, printing on paper. Skipped where there is no Chromium or no playwright.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.report.made_up_run import metrics_at, update_of, write_dump, write_metrics, write_run
from tests.report.test_report import HOSTILE
from verl_ispo.report import build

pytest.importorskip("playwright", reason="playwright is not installed (pip install -e .[dev])")
from tests.report.chromium import EVERYTHING_OPEN, NEEDS_CHROMIUM, SeenPage, chromium, look_at

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., SeenPage]]:
    """Looks at a report of a benign run and a hostile one."""
    root = tmp_path_factory.mktemp("report")
    benign = write_run(root / "benign")
    hostile = root / "hostile"
    write_metrics(hostile / "metrics.1.jsonl", {1: metrics_at(1), 2: {**metrics_at(2), "val-core/<b>/acc/mean@1": 0.5}})
    groups = [
        (f"<script>document.title='owned'</script>{text}", [(text, True), (text[::-1], False)]) for text in HOSTILE
    ]
    write_dump(hostile / "dump", [update_of(1, [group]) for group in groups] + [update_of(2, groups)])
    table = root / "table.csv"
    table.write_text(
        "model,method," + ",".join(f"benchmark {at}" for at in range(9)) + "\nx,y" + ",12.3 [4.5; 6.7]" * 9
    )
    assert build.run([str(benign), f"<b onclick>={hostile}"], root / "out", table) == 0
    with chromium() as browser:
        yield partial(look_at, browser, root / "out" / build.REPORT_FILE)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_and_is_silent(look: Callable[..., SeenPage], width: int, dark: bool):
    seen = look(width, EVERYTHING_OPEN + "document.documentElement.scrollWidth", dark=dark)
    assert seen.messages == []
    assert [address for address in seen.requests if not address.startswith("data:")] == []
    assert seen.value <= width
    assert seen.screenshot.startswith(b"\x89PNG")


def test_hostile_text_makes_no_elements(look: Callable[..., SeenPage]):
    count = (
        "[document.title, document.scripts.length, document.images.length, document.querySelectorAll('style').length]"
    )
    title, scripts, images, styles = look(1280, EVERYTHING_OPEN + count).value
    assert title.startswith("ISPO report: benign, <b onclick>")
    assert (scripts, images, styles) == (0, 0, 1)


def test_the_colouring_can_be_switched_without_a_script(look: Callable[..., SeenPage]):
    colours = """
        (() => {
            const token = document.querySelector('.text .critical');
            return ['entropy', 'drift', 'critical'].map(tint => {
                document.getElementById('tint-' + tint).click();
                return getComputedStyle(token).backgroundColor;
            });
        })()
    """
    seen = look(1280, EVERYTHING_OPEN + colours)
    assert len(set(seen.value)) == 3


def test_charts_have_the_page_colours_and_labelled_axes(look: Callable[..., SeenPage]):
    looked = """
        (() => {
            const charts = [...document.querySelectorAll('.panel > svg')];
            const text = [...charts[0].querySelectorAll('text')].map(one => one.textContent);
            const ink = getComputedStyle(charts[0].querySelector('text')).fill;
            return [charts.length, text.includes('training step'), ink, charts.every(one => one.ariaLabel.length > 20)];
        })()
    """
    count, labelled, ink_light, spoken = look(1280, looked).value
    ink_dark = look(1280, looked, dark=True).value[2]
    assert count > 20
    assert labelled
    assert spoken
    assert ink_light != ink_dark
