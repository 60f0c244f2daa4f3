"""A bundle made, carried and installed: into a fresh environment, without an index, from parts whose sums are checked.

The slim one is unpacked instead, without what one GPU machine does not run. The requirements are small wheels written
here, so no network is needed. Not exercised: the real sets, of gigabytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.scripts.launchers import ROOT, SCRIPTS, clean_environment, launch

pytest.importorskip("setuptools", reason="builds the project's wheel without a network")


RANDOM = os.urandom(2_500_000)  # does not compress


def write_wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """Version 1.0 of a package of these files."""
    information = f"{name}-1.0.dist-info"
    files = {
        **files,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{information}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{information}/RECORD"
    lines = []
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{path},sha256={digest},{len(content)}")
            wheel.writestr(path, content)
        wheel.writestr(record, "\n".join([*lines, f"{record},,"]) + "\n")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("making")
    (folder / "links").mkdir()
    write_wheel(
        folder / "links", "tiny_wheel", {"tiny_wheel/__init__.py": b"ANSWER = 42\n", "tiny_wheel/data.bin": RANDOM}
    )
    (folder / "some.txt").write_text("tiny-wheel==1.0\n")
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "links"), "PIP_NO_BUILD_ISOLATION": "0"}
    settings = {"REQUIREMENTS": "some.txt", "PROJECT_DEPS": "0", "PART_MB": "1", "OUT": "bundle"}
    run = launch("offline_bundle.sh", cwd=folder, PYTHON=sys.executable, **settings, **pip)
    assert run.returncode == 0, run.stderr
    return folder / "bundle"


def install(bundle: Path, python: Path | str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(PYTHON=str(python), PIP_INDEX_URL="http://127.0.0.1:9/nothing", PYTHONPATH="")
    command = ["bash", str(bundle / "install.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_it_comes_in_parts_of_the_size_with_their_sums(bundle: Path) -> None:
    parts = sorted(bundle.glob("wheels.tar.part-*"))
    assert len(parts) >= 3
    assert all(part.stat().st_size == 1_000_000 for part in parts[:-1])
    assert 0 < parts[-1].stat().st_size <= 1_000_000
    summed = {line.split()[1] for line in (bundle / "SHA256SUMS").read_text().splitlines()}
    assert summed == {path.name for path in bundle.iterdir()} - {"SHA256SUMS"}


def test_it_installs_without_an_index_and_imports(bundle: Path, tmp_path: Path) -> None:
    carried = tmp_path / "stick"
    shutil.copytree(bundle, carried)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    run = install(carried, python)
    assert run.returncode == 0, run.stdout + run.stderr
    code = "import tiny_wheel, importlib.metadata as m; print(tiny_wheel.ANSWER, m.version('verl_ispo'))"
    plain = clean_environment(PYTHONPATH="")
    shown = subprocess.run([python, "-c", code], env=plain, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.split()[0] == "42"
    where = "import importlib.util as u; print(u.find_spec('verl_ispo').submodule_search_locations[0])"
    shown = subprocess.run([python, "-c", where], env=plain, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (Path(shown.stdout.strip()) / "config/base_model/qwen2_5_math_7b.yaml").is_file()


def test_a_damaged_part_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    carried = tmp_path / "stick"
    shutil.copytree(bundle, carried)
    part = carried / "wheels.tar.part-002"
    content = bytearray(part.read_bytes())
    content[1234] ^= 1
    part.write_bytes(content)
    run = install(carried, sys.executable)
    assert run.returncode == 1
    assert "wheels.tar.part-002: FAILED" in run.stdout + run.stderr
    assert "copy it again" in run.stderr


def test_another_python_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/usr/bin/env bash\necho 3.9\n")
    other.chmod(0o755)
    run = install(bundle, other)
    assert run.returncode == 1
    assert "is Python 3.9, and the wheels are for" in run.stderr


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/mine").touch()
    run = launch("offline_bundle.sh", cwd=tmp_path, PYTHON=sys.executable, OUT="bundle")
    assert run.returncode == 2
    assert "not empty" in run.stderr


NEEDED = {"vllm/__init__.py": b"ANSWER = 43\n", "vllm/_C.so": RANDOM, "ray/__init__.py": b"", "ray/core/gcs": b"server"}
NOT_NEEDED = {
    "vllm/_moe_C.abi3.so": b"x" * 1_000_000,
    "vllm/third_party/deep_gemm/kernel.cu": b"x" * 100_000,
    "vllm/lib/libsome.a": b"x" * 100_000,
    "ray/jars/ray.jar": b"x" * 100_000,
}


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slim bundle; one of its pins is on the target already, and no index has it."""
    folder = tmp_path_factory.mktemp("making_slim")
    (folder / "links").mkdir()
    write_wheel(folder / "links", "vllm", {**NEEDED, **NOT_NEEDED})
    (folder / "pins.txt").write_text("# a comment\nvllm==1.0\nnowhere-to-be_found==7.0\n")
    (folder / "freeze.txt").write_text("Nowhere.to_be-found==7.1\ntorch @ file:///torch.whl\n")
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "links"), "PIP_NO_BUILD_ISOLATION": "0"}
    settings = {"EXTRA": "gpu", "SLIM": "1", "REQUIREMENTS": "pins.txt", "ON_TARGET": "freeze.txt", "PART_MB": "1"}
    run = launch("offline_bundle.sh", cwd=folder, PYTHON=sys.executable, OUT="bundle", **settings, **pip)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "left out     1.0 MiB  vllm/_moe_C*: mixtures of experts" in run.stdout
    assert "nothing matches" in run.stdout, "an entry that a new version has moved is named"
    return folder / "bundle"


def unpack(bundle: Path, to: Path, python: Path | str = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(PYTHON=str(python), TO=str(to), PYTHONPATH="")
    command = ["bash", str(bundle / "unpack.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_slim_bundle_unpacks_without_what_is_left_out(slim: Path, tmp_path: Path) -> None:
    assert all(part.stat().st_size <= 1_000_000 for part in slim.glob("site.tar.xz.part-*"))
    assert len(list(slim.glob("site.tar.xz.part-*"))) >= 3
    run = unpack(slim, tmp_path / "unpacked")
    assert run.returncode == 0, run.stdout + run.stderr
    site = tmp_path / "unpacked/site"
    for path, content in NEEDED.items():
        assert (site / path).read_bytes() == content
    assert not [path for path in NOT_NEEDED if (site / path).exists()]
    assert list((site / "vllm/__pycache__").glob("*.pyc")), "compiled once, for the many processes of a run"


def test_what_it_says_at_the_end_runs_from_it(slim: Path, tmp_path: Path) -> None:
    """The packages, this one with its entry point for verl among them, are found before those of the machine."""
    last = unpack(slim, tmp_path / "unpacked").stdout.splitlines()[-1]
    environment, checks = last.split(" && ")
    script, *overrides = checks.removeprefix("bash ").split(" ")
    assert Path(script).is_file()
    assert overrides == ["backend=torch_only_gpu"]
    code = (
        "import importlib.metadata as m, vllm, verl_ispo; "
        "print(vllm.ANSWER, verl_ispo.__file__, *m.entry_points(group='verl.plugins'))"
    )
    command = ["bash", "-c", f'{environment} && cd / && exec "$PYTHON" -c "$CODE"']
    run = subprocess.run(command, env=clean_environment(CODE=code), capture_output=True, text=True, check=True)
    answer, file, plugin = run.stdout.split(" ", 2)
    assert answer == "43"
    assert file == f"{tmp_path}/unpacked/site/verl_ispo/__init__.py"
    assert "verl_ispo.plugin" in plugin


def test_a_slim_bundle_that_is_damaged_or_for_another_python_is_refused(slim: Path, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/usr/bin/env bash\necho 3.9\n")
    other.chmod(0o755)
    run = unpack(slim, tmp_path / "unpacked", other)
    assert "is Python 3.9, and the packages are for" in run.stderr
    carried = tmp_path / "stick"
    shutil.copytree(slim, carried)
    (carried / "site.tar.xz.part-002").unlink()
    run = unpack(carried, tmp_path / "unpacked")
    assert run.returncode == 1
    assert "copy it again" in run.stderr
    assert not (tmp_path / "unpacked").exists()


def test_a_folder_that_is_there_is_not_unpacked_into(slim: Path, tmp_path: Path) -> None:
    run = unpack(slim, tmp_path)
    assert run.returncode == 2
    assert "is there already" in run.stderr


def test_the_slim_set_is_pinned_and_agrees_with_the_cpu_set() -> None:
    """What the GPU checks compare with was computed by the CPU set's versions."""

    def pins(name: str) -> dict[str, str]:
        lines = (ROOT / "requirements" / name).read_text().splitlines()
        wanted = [re.sub(r"\[.*\]", "", line).lower() for line in lines if line and not line.startswith("#")]
        assert wanted == sorted(set(wanted), key=wanted.index), "each once"
        return dict(line.split("==") for line in wanted)

    slim, cpu = pins("gpu_slim.txt"), pins("cpu.txt")
    for package in ("verl", "ray", "transformers", "tensordict", "transferqueue", "hydra-core", "math-verify"):
        assert slim[package] == cpu[package]


SLIM_SITE = runpy.run_path(str(SCRIPTS / "offline/slim_site.py"))


@settings(max_examples=examples(50))
@given(
    words=st.lists(st.text("abcXYZ019", min_size=1, max_size=4), min_size=1, max_size=3),
    joints=st.lists(st.sampled_from("-_."), min_size=4, max_size=4),
    form=st.sampled_from(["{}==1.0", "{} @ file:///x.whl", "{}"]),
)
def test_a_package_is_the_same_however_its_name_is_written(words: list[str], joints: list[str], form: str) -> None:
    """pip freeze writes `typing_extensions`, a requirement `Typing-Extensions`; carried twice, the first one wins."""
    pinned, frozen = (
        "-".join(words).lower(),
        "".join(f"{word}{joint}" for word, joint in zip(words, joints, strict=False)).rstrip("-_."),
    )
    assert SLIM_SITE["missing"](f"# pins\n{pinned}==2.0\n", form.format(frozen)) == []
    assert SLIM_SITE["missing"](f"{pinned}x==2.0\n", form.format(frozen)) == [f"{pinned}x==2.0"]


def test_transformers_is_carried_whatever_the_machine_has() -> None:
    """verl refuses the machine's version."""
    assert SLIM_SITE["missing"]("transformers==5.10.4\n", "transformers==5.17.0\n") == ["transformers==5.10.4"]


def test_what_two_entries_match_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c.a").write_bytes(b"x" * 100)
    entries = [SLIM_SITE["LeftOut"](pattern, "") for pattern in ("a/b", "**/*.a", "nothing*")]
    assert list(SLIM_SITE["remove_left_out"](tmp_path, entries).values()) == [100, 0, 0]
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]
