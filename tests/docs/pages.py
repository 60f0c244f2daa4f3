"""The pages that are tested, and what a Markdown page holds: headings, links, code blocks, code spans, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- run with: (.*?) -->\n\Z")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block of a page.

    Attributes:
        page: its page.
        line: of the page, where its text begins, from 1.
        language: after the fence: bash, python, text.
        text: what is between the fences.
        needs: files of ``<!-- run with: FILE FILE -->`` above it; a block with such a mark is run from end to end.
    """

    page: Path
    line: int
    language: str
    text: str
    needs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass(frozen=True)
class Table:
    """A table, with the heading that it stands under.

    Attributes:
        heading: text of the nearest heading above.
        header: its column names.
        rows: its cells, as Markdown.
    """

    heading: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> list[str]:
        """The cells of a column."""
        return [row[self.header.index(name)] for row in self.rows]


@cache
def text_of(page: Path) -> str:
    """The page as it is."""
    return page.read_text(encoding="utf-8")


def code_blocks(page: Path, language: str) -> list[CodeBlock]:
    """The fenced blocks of one language."""
    text, blocks = text_of(page), []
    for fence in _FENCE.finditer(text):
        mark = _MARK.search(text, 0, fence.start())
        if fence[1] == language:
            line = text.count("\n", 0, fence.start(2)) + 1
            blocks.append(CodeBlock(page, line, language, fence[2], tuple(mark[1].split()) if mark else ()))
    return blocks


def languages(page: Path) -> set[str]:
    """The languages of its fenced blocks."""
    return {fence[1] for fence in _FENCE.finditer(text_of(page))}


def prose_of(page: Path) -> str:
    """The page without fenced and indented blocks; line numbers stay."""
    blank = _FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text_of(page))
    return re.sub(r"^    .*$", "", blank, flags=re.MULTILINE)


def links(page: Path) -> list[str]:
    """Targets of all links and pictures."""
    return _LINK.findall(_SPAN.sub("", prose_of(page)))


def code_spans(page: Path) -> list[str]:
    """The texts in backticks of the prose, tables included, each on one line."""
    # a list's or a paragraph's line breaks may fall inside a span
    return [" ".join(span.split()) for span in _SPAN.findall(prose_of(page))]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    seen: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#+ (.*)$", _FENCE.sub("", text_of(page)), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return found


def tables(page: Path) -> Iterator[Table]:
    """The tables of a page."""
    heading, lines = "", []
    for line in [*prose_of(page).splitlines(), ""]:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("|"):
            lines.append(tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]))
        elif lines:
            yield Table(heading, lines[0], tuple(lines[2:]))
            lines = []
