"""What every page is made with: templates in which all text is escaped, and the one style sheet."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from verl_ispo.report.number_format import show
from verl_ispo.report.visible_text import visible

MAX_VALUE_CHARS = 300
MAX_NAME_CHARS = 80


def page_environment(package: str) -> Environment:
    """Templates of a package, with autoescape, in which an undefined name is an error.

    Args:
        package (`str`): dotted name; its templates are in ``templates``.
    """
    environment = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        show=show,
        name=lambda text: visible(str(text), MAX_NAME_CHARS),
        value=lambda text: visible(str(text), MAX_VALUE_CHARS),
    )
    return environment


def page_style() -> Markup:
    """The style sheet, which is ours and needs no escaping."""
    return Markup(resources.files("verl_ispo.report").joinpath("templates/report.css").read_text(encoding="utf-8"))
