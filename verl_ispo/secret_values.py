"""Secrets, told by their names: what may not stand on a command line, in a file that others read, or on the screen.

A key that stands in an override is seen by every user of the machine (``ps``) and by every reader of the run's folder
(``command.N.txt``, ``.hydra``), and verl prints its whole config into the log. So secrets travel through the
environment, and to the processes of a Ray cluster that is already running in a file of mode 600, which `load_secrets`
reads there.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path

from verl_ispo.atomic_file import write_text
from verl_ispo.user_error import UserError

FILE_VARIABLE = "VERL_ISPO_ENVIRONMENT_FILE"
"""Names the file of `write_secrets` to processes that have another environment than the launcher."""

RUNTIME_VARIABLES = "ray_kwargs.ray_init.runtime_env.env_vars"
"""Environment variables of Ray's processes, in verl's config."""

HIDDEN = "***"

_VARIABLE = re.compile(r"(?:.*_)?(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_ID)?")
# verl has keys such as data.prompt_key and max_token_len, so a key of a config needs more than one word
_CONFIG_KEY = re.compile(
    r"(?:.*_)?(api|access|secret|private|auth|hf|hub|wandb|swanlab)_?(key|token)|(?:.*_)?(password|passwd|secret)"
)
_PASSWORD_IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)")
_NAME_IN_TEXT = re.compile(r"([A-Za-z][A-Za-z0-9_]*)['\"]?\s*[=:]\s*")
_VALUE_IN_TEXT = re.compile(r"'[^']*'|\"[^\"]*\"|[^\s,{}\[\]'\"][^\s,}\]'\"]*")


def is_secret(name: str) -> bool:
    """Whether the value of a variable or of a config's key (its last part) of this name is a secret."""
    return (_VARIABLE if name.isupper() else _CONFIG_KEY).fullmatch(name) is not None


def redacted(text: str, environment: Mapping[str, str]) -> str:
    """A text for files and screens, without the values behind secret names and those of secret variables."""
    for value in sorted(secrets_of(environment).values(), key=len, reverse=True):
        if len(value) >= 8:  # a short value would hide words that are none
            text = text.replace(value, HIDDEN)
    text = _PASSWORD_IN_ADDRESS.sub(HIDDEN, text)
    shown, position = [], 0
    for _, start, end in _secrets_in(text):
        if start >= position:
            shown += [text[position:start], HIDDEN]
            position = end
    return "".join(shown) + text[position:]


def _secrets_in(text: str) -> Iterator[tuple[str, int, int]]:
    """Secret names in a text, with where the value of each starts and ends."""
    for found in _NAME_IN_TEXT.finditer(text):
        if is_secret(found[1]) and (value := _VALUE_IN_TEXT.match(text, found.end())):
            yield found[1], value.start(), value.end()


def redacted_overrides(overrides: Iterable[str]) -> list[str]:
    """Overrides, or the words of a command, as `redacted`; one whose key is a secret's loses its whole value."""
    shown = []
    for override in overrides:
        key, equals, _ = override.partition("=")
        secret = equals and is_secret(key.rpartition(".")[2].lstrip("+"))
        shown.append(f"{key}={HIDDEN}" if secret else redacted(override, os.environ))
    return shown


def secrets_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The secret variables of an environment that have a value."""
    return {name: value for name, value in environment.items() if value and is_secret(name)}


def taken_out(overrides: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Overrides without the secrets that they give to Ray's processes, and these by the name of their variable.

    Args:
        overrides (`Iterable[str]`): Hydra overrides of a command line.
    """
    kept, secrets = [], {}
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        section, _, name = key.rpartition(".")
        if section == RUNTIME_VARIABLES and is_secret(name) and not override.startswith("~"):
            secrets[name] = value[1:-1] if value[:1] in "'\"" and value[-1:] == value[:1] else value
        else:
            kept.append(override)
    return kept, secrets


def refuse_secrets(overrides: Iterable[str]) -> None:
    """Refuse an override that would put a secret on a command line and into verl's log.

    Raises:
        UserError: names the key, not the value.
    """
    for override in overrides:
        for name in _secret_names(override):
            raise UserError(
                f"the override {override.lstrip('+').partition('=')[0]} gives {name} a value, which every user of the "
                "machine could read on the command line and every reader of OUT in the log, where verl prints its "
                f"config; export it as an environment variable instead and give its name in RAY_ENV (--ray-env)"
            )


def _secret_names(override: str) -> Iterator[str]:
    """Names in an override, its key's or those inside its value, behind which a secret stands."""
    key, equals, value = override.partition("=")
    if override.startswith("~") or not equals or value.strip("'\" ") in ("", "null"):
        return
    name = key.rpartition(".")[2].lstrip("+")
    if is_secret(name):
        yield name
    yield from (inner for inner, _, _ in _secrets_in(value))
    if _PASSWORD_IN_ADDRESS.search(value):
        yield f"{name} (the password in its address)"


def write_secrets(file: Path, secrets: Mapping[str, str]) -> None:
    """Write variables for `load_secrets`, readable by this user alone."""
    write_text(file, json.dumps(dict(secrets)), mode=0o600)


def load_secrets(environment: MutableMapping[str, str]) -> None:
    """Take over the variables of the file that `FILE_VARIABLE` names, where this process has none of the name.

    A file that cannot be read is a line on the screen: what needs its variables says so itself.
    """
    file = environment.get(FILE_VARIABLE)
    if not file:
        return
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{file}: its variables are not set here ({error}); do all nodes see this folder?", file=sys.stderr)
        return
    for name, value in found.items():
        environment.setdefault(name, value)
