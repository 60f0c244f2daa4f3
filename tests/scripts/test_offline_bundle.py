"""A bundle made, carried and installed: into a fresh environment, without an index, from parts whose sums are checked.

The requirement is a small wheel written here, so no network is needed. Not exercised: the real sets, of gigabytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.scripts.launchers import clean_environment, launch

pytest.importorskip("setuptools", reason="builds the project's wheel without a network")


def write_wheel(folder: Path) -> None:
    """A package of one module and 2.5 MB of data that does not compress."""
    files = {
        "tiny_wheel/__init__.py": b"ANSWER = 42\n",
        "tiny_wheel/data.bin": os.urandom(2_500_000),
        "tiny_wheel-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n",
        "tiny_wheel-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "tiny_wheel-1.0.dist-info/RECORD"
    lines = []
    with zipfile.ZipFile(folder / "tiny_wheel-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}")
            wheel.writestr(name, content)
        wheel.writestr(record, "\n".join([*lines, f"{record},,"]) + "\n")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("making")
    (folder / "links").mkdir()
    write_wheel(folder / "links")
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
