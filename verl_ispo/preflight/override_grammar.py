"""Hydra overrides that do not parse, in words: which one, where in it, and how to write what was meant.

Hydra's grammar (https://hydra.cc/docs/advanced/override_grammar/basic/) gives a token of its own to characters that
shells and paths use freely, and its errors name tokens. What was meant is mostly one of a few things.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from verl_ispo.preflight.hydra_overrides import quoted
from verl_ispo.user_error import UserError

_KEY = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@-]*")
_NAMED_TEXT = re.compile(r"(?:input|at:|at) '(.*)'$", re.DOTALL)
_HOME = re.compile(r"(?<![^=\[,:{\s])~(?=/|$|[\],}])")


class OverrideError(UserError):
    """An override that Hydra cannot read."""


def check_overrides(overrides: Sequence[str]) -> None:
    """Parse every override.

    Raises:
        OverrideError: one of them does not parse, or would make several runs of one; names it, the position, and what
            to write instead.
    """
    for position, override in enumerate(overrides, start=1):
        found = _fault(override)
        if found is not None:
            fault, remedy = found
            where = f"override {position} of {len(overrides)}, {override!r}"
            raise OverrideError(f"{where}: {fault}. {remedy}")


def _fault(override: str) -> tuple[str, str] | None:
    """What Hydra does not read in an override, and the remedy; `None` if it reads it."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        return _reason(override, error), _remedy(override)
    key, _, value = override.partition("=")
    if not key.strip("+~ "):
        return "it has no key", _remedy(override)
    if parsed.is_sweep_override():
        return (
            f"a comma outside of brackets and quotes ({value}) asks Hydra for one run per value",
            f"For a list write {_shell(f'{key}=[{value}]')}, for a text with commas {_shell(f'{key}={quoted(value)}')}",
        )
    return None


def _reason(override: str, error: Exception) -> str:
    """Hydra's own words, with the character at which its reader stops, counted from 1."""
    said = str(error).strip().splitlines()[0].split(" expecting ")[0]
    stopped = _stopped_at(override, said)
    at = f"character {stopped + 1} ({override[stopped]!r})" if stopped < len(override) else "its end"
    return f"Hydra's grammar does not read it at {at}: {said}"


def _stopped_at(override: str, said: str) -> int:
    """The position that Hydra's message is about, which it names by the text alone."""
    if "Unknown function" in said:
        return override.find("(")
    named = _NAMED_TEXT.search(said)
    if named is None or "<EOF>" in said:
        return len(override)
    text = named.group(1)
    found = override.find(text, override.find("=") + 1)
    if found < 0:
        found = max(override.find(text), 0)
    # "no viable alternative" quotes all that was read, to the character at which nothing fits
    return found + len(text) - 1 if "alternative" in said else found


def _remedy(override: str) -> str:
    key, equals, value = override.partition("=")
    if override.startswith("-"):
        return f"Overrides have no dashes in front: {_shell(override.lstrip('-'))}; options go by --help"
    if not equals:
        if key.lstrip("+~") and not _KEY.fullmatch(key):
            return "An override is KEY=VALUE, KEY of letters, digits, _ and dots"
        return f"An override is KEY=VALUE without spaces around =: {key}=VALUE; ~{key.lstrip('+~')} removes a key"
    if key != key.strip() or not key.strip():
        return f"Write no spaces around =: {key.strip() or 'KEY'}={value.strip() or 'VALUE'}"
    if not _KEY.fullmatch(key):
        return f"{key!r} is no key; it has letters, digits, _ and dots, such as data.train_files"
    if _HOME.search(value):
        home = _HOME.sub("$HOME", value)
        quoting = f'"{key}={home}"' if _reads(f"{key}={home.replace('$HOME', '/home')}") else f"\"{key}='{home}'\""
        return f"A shell replaces ~ only at the start of a word, and Hydra not at all; write $HOME: {quoting}"
    opened = _unbalanced(value)
    if opened:
        return f"{opened} is not closed; quote the whole override for the shell: {_shell(override + '...')}"
    fixed = _quoted_items(key, value) or f"{key}={quoted(value)}"
    if value[:1] not in "[{'\"" and re.search(r"\s[+~]{0,2}[A-Za-z_][\w.]*=", value):
        return f"Give each override as a word of its own, or, if this is one text, quote it: {_shell(fixed)}"
    return f"Quote a text with such characters for Hydra, and the whole for the shell: {_shell(fixed)}"


def _quoted_items(key: str, value: str) -> str | None:
    """A flat list with each of its items quoted, where that is what was meant."""
    if not (value.startswith("[") and value.endswith("]")) or re.search(r"[\[\]{}'\"]", value[1:-1]):
        return None
    items = [item.strip() for item in value[1:-1].split(",")]
    fixed = f"{key}=[{','.join(item if _reads(f'{key}={item}') else quoted(item) for item in items)}]"
    return fixed if _reads(fixed) else None


def _reads(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _unbalanced(value: str) -> str | None:
    """A bracket, brace or quote that is opened and not closed."""
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) > value.count(closing):
            return opening
    if value[:1] in ("'", '"') and (len(value) == 1 or value[-1] != value[0]):
        return value[0]
    return None


def _shell(override: str) -> str:
    """The override quoted for a shell, in double quotes where that is easier to read."""
    if "'" in override and not re.search(r'[$`"\\!]', override):
        return f'"{override}"'
    return shlex.quote(override)
