"""Values of the config that a launcher is about to train with, one a line, without importing verl.

python scripts/composed_settings.py --config-name ispo_trainer data.max_response_length -- method=dapo data.seed=2

A key that is not there, or null, is an empty line. Exit status 2: the config does not compose (one sentence says why).
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def composed(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The config as verl's main composes it, verl_ispo's groups included."""
    verl = importlib.util.find_spec("verl")
    if verl is None or not verl.submodule_search_locations:
        raise ModuleNotFoundError("verl is not installed in this environment; pip install 'verl>=0.9.1,<0.10'")
    folder = Path(verl.submodule_search_locations[0]).resolve() / "trainer" / "config"
    with initialize_config_dir(str(folder), version_base=None):
        return compose(config_name, overrides=list(overrides))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-name", required=True, help="ispo_trainer or ispo_megatron_trainer")
    parser.add_argument("keys", nargs="+", metavar="KEY", help="dotted keys to print; after -- the Hydra overrides")
    options = parser.parse_args(given[:split])
    try:
        config = composed(options.config_name, given[split + 1 :])
        values = [OmegaConf.select(config, key) for key in options.keys]
    except (HydraException, OmegaConfBaseException, ModuleNotFoundError) as error:
        print(f"{options.config_name} does not compose: {str(error).strip()}", file=sys.stderr)
        return 2
    for value in values:
        print("" if value is None else value)
    return 0


if __name__ == "__main__":
    sys.exit(main())
