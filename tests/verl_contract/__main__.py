"""``python -m tests.verl_contract [FOLDER | --write]``: check a verl source, the installed one by default."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from tests.verl_contract.checks import (
    CONFIG_NAMES,
    CONTRACT,
    MARK,
    compose_configs,
    fault,
    has_key,
    items,
    read_contract,
)
from tests.verl_contract.sources import Sources, installed
from tests.verl_contract.uses import FOREIGN, uses_of_package


def check(sources: Sources) -> list[str]:
    """A sentence for each item that the source lacks."""
    configs = compose_configs(sources)
    faults = (fault(item, sources, configs) for item in items(read_contract()))
    return [sentence for sentence in faults if sentence is not None]


def write() -> None:
    """Bring the list's second half up to date with this package's source."""
    sources = installed("verl_ispo", *FOREIGN)
    configs = compose_configs(sources)
    found = uses_of_package(frozenset(configs["keys"]), sources)
    undeclared = {key for entry in read_contract()["by_hand"] for key in entry.get("keys", ())}
    for key in sorted(set(found["keys"]) - undeclared):
        kind = next((kind for kind, config in configs.items() if has_key(config, key)), None)
        if kind is None:
            sys.exit(
                f"{key} ({', '.join(sorted(found['keys'][key]))}) is no setting of verl's YAML files: add it by hand"
            )
        if kind != "keys":
            found[kind][key] = found["keys"].pop(key)
    for key in undeclared & set(found["keys"]):
        del found["keys"][key]
    kinds = ("names", "arguments", "overrides", "abstract", "attributes", *CONFIG_NAMES)
    listed = {kind: {what: sorted(by) for what, by in sorted(found[kind].items())} for kind in kinds}
    by_hand = CONTRACT.read_text(encoding="utf-8").partition(MARK)[0]
    text = yaml.safe_dump({"found": listed}, sort_keys=False, width=1000, default_flow_style=None)
    CONTRACT.write_text(by_hand + MARK + text, encoding="utf-8")


def main() -> int:
    """Run one of the two; the exit status is 1 where something is missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.verl_contract", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="folder that holds verl/, for example a clone")
    parser.add_argument("--write", action="store_true", help="bring the list up to date with this package's source")
    arguments = parser.parse_args()
    if arguments.write:
        write()
        return 0
    sources = installed(*FOREIGN)
    if arguments.folder is not None:
        package = arguments.folder / "verl"
        if not (package / "trainer" / "config").is_dir():
            parser.error(f"{package} is no source of verl: give the folder of a clone")
        sources = Sources({**sources.folders, "verl": package})
    faults = check(sources)
    print(*faults, f"{len(faults)} of {sum(1 for _ in items(read_contract()))} items are missing.", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
