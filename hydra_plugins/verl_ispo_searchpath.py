"""Lets verl's own mains find verl_ispo's configs by ``--config-name`` alone.

Hydra imports every module of the namespace package ``hydra_plugins``; that is why this one is outside verl_ispo.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class VerlISPOSearchPathPlugin(SearchPathPlugin):
    """Appends ``verl_ispo.config`` to the search path of the main that is running."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="verl_ispo", path="pkg://verl_ispo.config")
