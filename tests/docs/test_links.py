"""Every link inside the repository leads somewhere: file, picture, heading. Not exercised: whether a site answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, README, ROOT, anchors, code_spans, links, tables, text_of

FOLDERS = ("data_prep", "docs", "examples", "hydra_plugins", "requirements", "scripts", "tests", "verl_ispo")


def by_name(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for target in links(page):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_relative_to(ROOT) or not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_files_named_in_the_text_exist(page: Path) -> None:
    words = [word.rstrip(",;") for span in code_spans(page) for word in span.split()]
    paths = [word for word in words if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./*-]*", word)]
    missing = [path for path in paths if not list(ROOT.glob(path.rstrip("/")))]
    assert not missing


def test_the_readme_leads_to_every_page() -> None:
    reached = {(README.parent / target.partition("#")[0]).resolve() for target in links(README)}
    assert {page for page in PAGES if page != README} <= reached


def test_every_picture_is_shown() -> None:
    shown = {(page.parent / target).resolve() for page in PAGES for target in links(page) if target.endswith(".png")}
    assert shown == set((ROOT / "docs").glob("*.png"))


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_tables_have_as_many_cells_in_each_row_as_columns(page: Path) -> None:
    for table in tables(page):
        assert {len(row) for row in table.rows} == {len(table.header)}, table.header


def test_the_readme_is_short() -> None:
    text = text_of(README)
    assert len(text.splitlines()) <= 150
    # the generated table of names is looked up, not read
    assert len(re.sub(r"<!--generated:.*?<!--end:\w+-->", "", text, flags=re.DOTALL).split()) <= 1200
