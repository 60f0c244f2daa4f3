"""verl and TransferQueue have everything that `verl_ispo` leans on; and the list of it is complete.

Derivation: the list is ``contract.yaml``; what the package uses is read from its source (`uses`), and what verl has
from verl's source (`sources`), without importing either. Settings are looked up in verl's configs, composed by Hydra.

Not exercised: what a method does, which the tests of trainer and CPU back end show; the dependency of readers on names
of verl's metrics.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.verl_contract.checks import CONFIG_NAMES, Item, compose_configs, fault, items, read_contract
from tests.verl_contract.sources import Sources, installed
from tests.verl_contract.uses import FOREIGN, uses_of_package

ITEMS = tuple(items(read_contract()))


@cache
def sources() -> Sources:
    return installed("verl_ispo", *FOREIGN)


@cache
def configs() -> dict:
    return compose_configs(sources())


@cache
def uses() -> dict:
    return uses_of_package(frozenset(configs()["keys"]), sources())


@pytest.mark.parametrize("item", ITEMS, ids=str)
def test_verl_has(item: Item) -> None:
    """What a new verl lacks is said once for each item, with the file that needs it."""
    sentence = fault(item, sources(), configs())
    assert sentence is None, sentence


@cache
def listed() -> dict[str, dict[str, list[str]]]:
    """The list's part that is found in the source, with all settings as one kind."""
    contract = read_contract()
    found = {kind: dict(of_kind) for kind, of_kind in contract["found"].items()}
    found["keys"].update(found.pop("megatron_keys"))
    found["keys"].update({key: [] for entry in contract["by_hand"] for key in entry.get("keys", ())})
    return found


def test_the_list_names_all_that_the_package_uses() -> None:
    """A new import, override, argument, attribute or setting of verl's is in the list before it is merged."""
    missing = [
        f"{kind}: {what} ({', '.join(sorted(files))})"
        for kind, of_kind in uses().items()
        for what, files in of_kind.items()
        if what not in listed().get(kind, {})
    ]
    assert not missing, "not in contract.yaml; run: python -m tests.verl_contract --write\n" + "\n".join(missing)


def test_the_list_names_nothing_that_the_package_no_longer_uses() -> None:
    """An item without a user would make an upgrade look harder than it is."""
    stale = [
        f"{kind}: {what} ({', '.join(set(files) - uses()[kind].get(what, set()))})"
        for kind, of_kind in listed().items()
        for what, files in of_kind.items()
        if what not in uses()[kind] or set(files) - uses()[kind][what]
    ]
    assert not stale, "no longer used there; run: python -m tests.verl_contract --write\n" + "\n".join(stale)


def test_files_named_by_hand_exist() -> None:
    package = sources().folders["verl_ispo"]
    gone = {file for item in ITEMS for file in item.by if not (package / file).is_file()}
    assert not gone


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("names", "verl.trainer.ppo.v1.trainer_base.PPOTrainer"),
        ("names", "transfer_queue.kv_batch_get"),  # through a module
        ("names", "verl.model_merger"),  # started by its name
        ("arguments", "verl.trainer.ppo.core_algos.agg_loss(loss_mat=)"),
        ("overrides", "verl.trainer.ppo.v1.trainer_base.PPOTrainer.prepare_step(self)"),
        ("abstract", "verl.plugin.platform.platform_base.PlatformBase.device_name"),
        ("attributes", "verl.trainer.ppo.v1.trainer_base.PPOTrainer.local_trigger_step"),  # of self
        ("attributes", "verl.trainer.ppo.v1.trainer_base.PPOTrainer.steps_per_epoch"),  # of a parameter
        ("attributes", "verl.workers.rollout.replica.RolloutReplicaRegistry._registry"),  # of an imported class
        ("keys", "actor_rollout_ref.rollout.temperature"),
        ("keys", "transfer_queue.backend.SimpleStorage.num_data_storage_units"),  # in a YAML file alone
        ("keys", "algorithm.rollout_correction.bypass_mode"),  # in an f-string of constants
    ],
)
def test_known_uses_are_found(kind: str, what: str) -> None:
    """A reader of the source that overlooks a kind of use would leave the list incomplete in silence."""
    assert what in uses()[kind]


PRESENT = """
from abc import ABC, abstractmethod
class Base(ABC):
    @abstractmethod
    def a(self): ...
    def __init__(self):
        self.steps = 0
class Trainer(Base):
    def a(self): ...
    def step(self, batch, metrics):
        self.prepare()
        self.update(batch, fields=["rewards"])
        loss(log_prob=1, mask=2)
    def stop(self):
        for server in self.servers:
            server.sleep.remote()
def prepare(batch, *, strict=False): ...
"""
CHANGES = [
    (Item("names", "verl.prepare", ("x.py",)), "def prepare(", "def prepared(", "verl.prepare is not there"),
    (Item("arguments", "verl.prepare(strict=)", ("x.py",)), "strict", "careful", "takes no argument strict"),
    (Item("overrides", "verl.Trainer.step(self, batch, metrics)", ("x.py",)), "metrics", "timing", "batch, timing"),
    (Item("abstract", "verl.Base", ("x.py",), ("a",)), "def a(self)", "def b(self)", "for b"),
    (Item("attributes", "verl.Trainer.steps", ("x.py",)), "self.steps", "self.count", "Trainer.steps is not there"),
    (Item("texts", "verl.Trainer.step", ("x.py",), ("rewards",)), '"rewards"', '"scores"', "'rewards'"),
    (Item("calls", "verl.Trainer.step", ("x.py",), ("prepare", "update")), "self.prepare()", "...", "['update']"),
    (Item("gives", "verl.Trainer.step", ("x.py",), ("loss", "log_prob", "mask")), "mask=2", "mask=2, kl=3", "kl"),
    (Item("asks", "verl.Trainer", ("x.py",), ("sleep",)), "server.sleep", "server.nap", "nap"),
]


@pytest.mark.parametrize(("item", "before", "after", "said"), CHANGES, ids=[str(row[0]) for row in CHANGES])
def test_each_kind_of_change_is_noticed(tmp_path: Path, item: Item, before: str, after: str, said: str) -> None:
    """A check that passes whatever verl does is worth nothing: of two sources, the changed one alone is refused."""
    source = tmp_path / "verl" / "__init__.py"
    source.parent.mkdir()
    source.write_text(PRESENT)
    assert fault(item, Sources({"verl": source.parent}), {}) is None
    assert before in PRESENT
    source.write_text(PRESENT.replace(before, after))
    sentence = fault(item, Sources({"verl": source.parent}), {})
    assert said in sentence
    assert "needed by verl_ispo/x.py" in sentence


NAMES = st.lists(st.sampled_from(["batch", "metrics", "prefix", "keep"]), unique=True)


@settings(max_examples=examples(50))
@given(before=NAMES, after=NAMES, star=st.booleans())
def test_a_signature_is_the_same_or_it_is_not(before: list[str], after: list[str], star: bool) -> None:
    """An override that verl calls with another argument fails in the middle of a step."""
    listed = ", ".join(["self", *before])
    there = ", ".join(["self", *after, *(["**more"] if star else [])])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "__init__.py").write_text(f"class Trainer:\n    def step({there}): ...\n")
        item = Item("overrides", f"verl.Trainer.step({listed})", ("x.py",))
        sentence = fault(item, Sources({"verl": Path(folder)}), {})
    assert (sentence is None) == (listed == there)


@pytest.mark.parametrize("kind", CONFIG_NAMES)
def test_a_setting_that_is_gone_is_noticed(kind: str) -> None:
    item = Item(kind, "data.shuffle", ("config/a.yaml",))
    assert fault(item, sources(), {kind: {"data": {"shuffle": None}}}) is None
    assert "data.shuffle is no setting" in fault(item, sources(), {kind: {"data": {"seed": 1}}})


def test_names_are_followed_through_re_exports(tmp_path: Path) -> None:
    """Most of verl's names are imported from a package that imports them from a module."""
    package = tmp_path / "verl"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("from .inner import Thing\nfrom .inner.more import *\n")
    (package / "inner" / "__init__.py").write_text(
        "try:\n    from verl.inner.thing import Thing\nexcept ImportError:\n    pass\n"
    )
    (package / "inner" / "thing.py").write_text("class Thing:\n    def run(self): ...\n")
    (package / "inner" / "more.py").write_text("def extra(): ...\n")
    source = Sources({"verl": package})
    assert source.find("verl.Thing.run").module == "verl.inner.thing"
    assert source.find("verl.extra").module == "verl.inner.more"
    assert source.find("verl.Thing.walk") is None
    assert source.find("verl.nothing") is None
