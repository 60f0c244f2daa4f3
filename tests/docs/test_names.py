"""Every setting, preset and option that a page names exists, and every setting and preset is on its page.

What exists is read off the composed configs, the dataclasses, the presets' files and the argument parsers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from tests.docs.commands import commands_of, module_parser, options_of, script_parser, subparsers
from tests.docs.generated import generated_parts, with_part
from tests.docs.pages import PAGES, ROOT, Table, code_blocks, code_spans, tables, text_of
from tests.preflight.set_ups import composed
from verl_ispo import ISPOConfig
from verl_ispo.cli import build_parser, main
from verl_ispo.method_presets import PRESET_FOLDER, method_names, read_preset
from verl_ispo.methods import sign

CONFIG = ROOT / "verl_ispo" / "config"
CONFIG_NAMES = ("ispo_trainer", "ispo_megatron_trainer")
GROUPS = ("method", "base_model", "backend")
DOCS = ROOT / "docs"
SETTING = re.compile(r"[+~]*([a-z_]\w*(?:\.\w+)*)=(.*)")


def by_name(page: Path) -> str:
    return page.name


def flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every entry, sections included."""
    for key, value in section.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")


def plain(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=False)


@cache
def known_settings() -> frozenset[str]:
    """Dotted keys of both configs, of every preset, and of Hydra itself."""
    keys = {key for name in CONFIG_NAMES for key, _ in flat(plain(composed(name)))}
    keys |= {key for name in method_names() for key in read_preset(name).changes}
    for group in ("base_model", "backend"):
        for file in (CONFIG / group).glob("*.yaml"):
            keys |= {key for key, _ in flat(plain(OmegaConf.load(file)))}
    keys |= {f"hydra.{key}" for key, _ in flat(plain(OmegaConf.structured(HydraConf)))}
    return frozenset(keys)


@cache
def sections() -> frozenset[str]:
    """The first parts of all keys: algorithm, trainer, data, ..."""
    return frozenset(key.split(".")[0] for key in known_settings())


@cache
def presets(group: str) -> frozenset[str]:
    return frozenset(file.stem for file in (CONFIG / group).glob("*.yaml"))


def unknown_override(override: str) -> str | None:
    """What is wrong with ``key=value``, or nothing."""
    key, value = SETTING.fullmatch(override).groups()
    if key in GROUPS:
        return None if value in {*presets(key), "NAME", ""} else f"{key}={value}: no such preset"
    # a key that is added belongs to a section that is there, or to a new one in it
    accepted = [key, *(key.rsplit(".", levels)[0] for levels in (1, 2))] if override.startswith("+") else [key]
    known = not known_settings().isdisjoint(accepted)
    return None if known else f"{override}: no such key"


def overrides_on(page: Path) -> Iterator[str]:
    """Every ``key=value`` of the blocks and the text that is meant for Hydra."""
    for block in code_blocks(page, "bash"):
        for command in commands_of(block.text, home="/home/reader"):
            yield from filter(is_override, command.arguments)
    for block in code_blocks(page, "text"):
        yield from (line for line in block.text.splitlines() if SETTING.fullmatch(line))
    for span in code_spans(page):
        yield from filter(is_override, span.split())


def is_override(word: str) -> bool:
    """Whether it reads as ``preset=name`` or ``section.key=value``."""
    setting = SETTING.fullmatch(word)
    return bool(setting) and (setting[1] in GROUPS or ("." in setting[1] and setting[1].split(".")[0] in sections()))


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_settings_on_command_lines_exist(page: Path) -> None:
    assert [fault for override in overrides_on(page) if (fault := unknown_override(override))] == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_settings_named_in_the_text_exist(page: Path) -> None:
    named = [span for span in code_spans(page) if re.fullmatch(r"[a-z_]+(\.\w+)+", span)]
    settings = [key for key in named if key.split(".")[0] in sections() and not (DOCS / key).exists()]
    assert [key for key in settings if key not in known_settings()] == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_code_named_in_the_text_exists(page: Path) -> None:
    for name in (span for span in code_spans(page) if re.fullmatch(r"(verl_ispo|data_prep)(\.\w+)+", span)):
        path = ROOT / name.replace(".", "/")
        module, _, attribute = name.rpartition(".")
        if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
            continue
        source = (ROOT / module.replace(".", "/")).with_suffix(".py")
        assert source.exists(), name
        assert re.search(rf"^(def|class) {attribute}\b", source.read_text(encoding="utf-8"), re.MULTILINE), name


def given_to_variables(page: Path, variable: str) -> Iterator[str]:
    """Values that the page gives to a variable of the scripts, such as METHOD; several words are several values."""
    for block in code_blocks(page, "bash"):
        for command in commands_of(block.text, home="/home/reader"):
            for name, value in command.variables:
                if name == variable:
                    yield from value.split()
    for span in code_spans(page):
        for value in re.findall(rf"\b{variable}=\"?([\w ./-]+)", span):
            yield from value.split(" ")[:1]


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_methods_and_models_given_to_scripts_exist(page: Path) -> None:
    for variable in ("METHOD", "METHODS"):
        assert set(given_to_variables(page, variable)) <= {*method_names(), "NAME", "..."}
    models = {model for model in given_to_variables(page, "MODEL") if "/" not in model}
    assert models <= presets("base_model")


def options_in(span: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][\w-]*", span)


@cache
def known_options() -> frozenset[str]:
    """Options of every program of the repository, and of verl's main."""
    scripts = [path for path in (ROOT / "scripts").rglob("*.py") if "argparse" in path.read_text(encoding="utf-8")]
    found = options_of(build_parser()) | {"--config-name", "--help"}
    for script in scripts:
        found |= options_of(script_parser(str(script.relative_to(ROOT))))
    for module in ("data_prep.math500", "data_prep.dapo_math", "data_prep.generic", "tests.verl_contract"):
        found |= options_of(module_parser(module))
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_options_named_in_the_text_exist(page: Path) -> None:
    named = {option for span in code_spans(page) for option in options_in(span)}
    assert named - known_options() == set()


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_commands_named_in_the_text_take_their_options(page: Path) -> None:
    for span in code_spans(page):
        program, *words = span.split()
        if program == "verl-ispo" and words:
            commands = subparsers(build_parser())
            assert words[0] in commands, span
            assert set(options_in(span)) <= options_of(commands[words[0]]), span
        elif program == "python" and words[0].startswith("scripts/"):
            assert set(options_in(span)) <= options_of(script_parser(words[0])), span


def keyed_tables(page: str, section: str) -> list[Table]:
    """Tables whose column of keys stands under a heading, or in a column, that names the section."""
    found = []
    for table in tables(DOCS / page):
        names = (table.heading, table.header[0])
        if any(f"`{section}`" in name for name in names) and table.header[0].startswith("key"):
            found.append(table)
    return found


def keys_of(table: Table) -> list[str]:
    return [cell.strip("`") for cell in table.column(table.header[0])]


def same(written: str, value: Any) -> bool:
    """Whether a table's cell stands for this value of a config."""
    if value is None or isinstance(value, bool):
        return written == {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (int, float)):
        return float(written) == value
    # a text with escapes is quoted as in YAML, and a list is in its brackets
    return (yaml.safe_load(written) if written.startswith(('"', "[")) else written) == value


def wrong_defaults(table: Table, section: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that the table lacks, has too many of, or gives another default."""
    written = dict(zip(keys_of(table), table.column("default"), strict=True))
    wrong = {key: value for key, value in section.items() if key not in written or not same(written[key], value)}
    return wrong | {key: "no such key" for key in written if key not in section}


@pytest.mark.parametrize("section", ["algorithm.ispo", "trainer.v1.ispo"])
def test_the_settings_page_has_every_key_with_its_default(section: str) -> None:
    (table,) = keyed_tables("settings.md", section)
    assert wrong_defaults(table, plain(OmegaConf.select(composed(), section))) == {}


def test_the_report_page_has_the_dumps_keys_with_their_defaults() -> None:
    (table,) = keyed_tables("report.md", "trainer.v1.ispo")
    settings = plain(OmegaConf.select(composed(), "trainer.v1.ispo"))
    assert wrong_defaults(table, {key: value for key, value in settings.items() if key.startswith("dump_")}) == {}
    assert keys_of(table)


def test_the_paper_index_has_every_setting_of_ispo() -> None:
    (table,) = keyed_tables("paper_index.md", "algorithm.ispo")
    assert sorted(keys_of(table)) == sorted(field.name for field in fields(ISPOConfig))


def test_the_paper_index_has_the_training_settings_as_they_are_composed() -> None:
    (table,) = [table for table in tables(DOCS / "paper_index.md") if table.heading == "Training settings"]
    for keys, values in zip(table.column("key"), table.column("value"), strict=True):
        for key, value in zip(keys.split(", "), values.split(", "), strict=True):
            assert same(value, OmegaConf.select(composed(), key.strip("`"))), key


def preset_tables() -> Iterator[tuple[str, str, str]]:
    """Preset, key and value of every row under "Other methods" of the paper index."""
    for table in tables(DOCS / "paper_index.md"):
        named = re.search(r"\(`(\w+)`\)", table.heading)
        if table.header[:2] == ("key", "value") and named:
            for row in table.rows:
                yield named[1], row[0].strip("`"), row[1].strip("`")
        if table.header[:3] == ("preset", "key", "value"):
            for row in table.rows:
                for preset in re.findall(r"`(\w+)`", row[0]):
                    yield preset, row[1].strip("`"), row[2].strip("`")


def test_the_paper_index_has_what_presets_change() -> None:
    rows = list(preset_tables())
    assert len(rows) > 40
    for preset, key, value in rows:
        assert same(value, read_preset(preset).changes[key]), (preset, key)
    written = {(preset, key) for preset, key, _ in rows}
    keys = {key for _, key in written}
    for preset in {preset for preset, _ in written}:
        own = set(read_preset(preset).changes)
        assert own <= keys, f"{preset} changes keys that are not on the page"
        if not preset.startswith("ispo_"):
            assert own == {key for named, key in written if named == preset}, preset


def test_the_methods_page_has_the_table_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for form, page in (("--markdown", "methods.md"), ("--kinds", "methods.md"), ("--index", "paper_index.md")):
        assert main(["methods", form]) == 0
        assert capsys.readouterr().out.strip() in text_of(DOCS / page), "run python -m tests.docs.generated"


@pytest.mark.parametrize("part", sorted(generated_parts()), ids=lambda part: f"{part[0].name}-{part[1]}")
def test_what_is_generated_from_the_presets_is_as_it_was_generated(part: tuple[Path, str]) -> None:
    page, name = part
    assert with_part(text_of(page), name, generated_parts()[part]) == text_of(page), (
        "run python -m tests.docs.generated"
    )


def test_the_page_on_adding_a_method_shows_the_files_as_they_are() -> None:
    blocks = re.findall(
        r"^```(python|yaml)\n(.*?)^```$", text_of(DOCS / "adding_a_method.md"), re.DOTALL | re.MULTILINE
    )
    files = {"python": Path(sign.__file__), "yaml": PRESET_FOLDER / "sign.yaml"}
    shown = {kind: block for kind, block in blocks if block.startswith(('"""', "# @package"))}
    assert sorted(shown) == sorted(files)
    for kind, block in shown.items():
        assert block == files[kind].read_text(encoding="utf-8"), kind


def test_the_methods_page_names_presets_that_exist() -> None:
    listed = {
        name
        for table in tables(DOCS / "methods.md")
        if table.header[0] in ("group", "preset")
        for row in table.rows
        for name in re.findall(r"`(\w+)`", row[-1] if table.header[0] == "group" else row[0])
    }
    assert listed
    assert listed <= set(method_names())
