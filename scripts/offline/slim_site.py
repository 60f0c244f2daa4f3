"""A folder of installed wheels without what one GPU machine does not run, for ``SLIM=1 scripts/offline_bundle.sh``.

    python scripts/offline/slim_site.py install WHEELS SITE
    python scripts/offline/slim_site.py missing REQUIREMENTS FREEZE

``install`` puts every wheel of a folder into another with this interpreter's pip, without dependencies and without an
index, removes what is listed in `LEFT_OUT`, and prints what that saves. An entry that matches nothing is named, since a
new version may have moved it; that is no error. ``missing`` prints the pins of packages that a machine does not have,
from its ``pip freeze``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class LeftOut:
    """Files and folders that are removed.

    Attributes:
        pattern: as `Path.glob` takes it, from the folder of the installed packages.
        reason: why a training of a dense model on one Hopper GPU does not need them.
    """

    pattern: str
    reason: str


LEFT_OUT = (
    LeftOut("vllm/third_party/deep_gemm", "matrix products in 8 bits, compiled at run time"),
    LeftOut("vllm/third_party/fmha_sm100", "attention on Blackwell GPUs"),
    LeftOut("vllm/_flashmla*", "attention of DeepSeek's models"),
    LeftOut("vllm/_qutlass*", "quantized matrix products on Blackwell GPUs"),
    LeftOut("vllm/_moe_C*", "mixtures of experts"),
    LeftOut("vllm/vllm_flash_attn/_vllm_fa2_C*", "FlashAttention 2; Hopper GPUs run 3, which stays"),
    LeftOut("vllm/vllm-rs", "a front end in Rust, which verl does not start"),
    LeftOut("ray/jars", "Ray in Java"),
    LeftOut("ray/rllib", "another RL library"),
    LeftOut("ray/dashboard/client", "pages of Ray's dashboard"),
    LeftOut("pandas/tests", "tests"),
    LeftOut("pyarrow/tests", "tests"),
    LeftOut("pyarrow/include", "headers to compile against"),
    LeftOut("**/*.a", "libraries to link against"),
)


# Carried although the machine has them, in other versions than verl admits.
CARRIED_ANYWAY = {"transformers", "tokenizers"}


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(part.lstat().st_size for part in path.rglob("*") if not part.is_dir())
    return path.lstat().st_size


def remove_left_out(site: Path, entries: Sequence[LeftOut] = LEFT_OUT) -> dict[LeftOut, int]:
    """Remove what is listed; returns the bytes of each entry, 0 where nothing matched.

    Args:
        site (`Path`): folder of installed packages.
        entries (`Sequence[LeftOut]`, *optional*): what to remove.
    """
    saved = dict.fromkeys(entries, 0)
    for entry in entries:
        for path in sorted(site.glob(entry.pattern)):
            if not path.exists():
                continue  # inside a folder that this entry has removed
            saved[entry] += size_of(path)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    return saved


def install(wheels: Path, site: Path) -> None:
    """Install all wheels of a folder into another one.

    Raises:
        subprocess.CalledProcessError: pip refuses one, for example of another Python version.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-compile", "--target", str(site)]
    subprocess.run([*command, *map(str, sorted(wheels.glob("*.whl")))], check=True)


def missing(requirements: str, freeze: str) -> list[str]:
    """The pins whose packages are not installed, those of `CARRIED_ANYWAY` included; comments are left out.

    Args:
        requirements (`str`): lines ``name==version``.
        freeze (`str`): what ``pip freeze`` prints, ``name==version`` or ``name @ url``.
    """
    installed = {_normalized(line) for line in freeze.splitlines()} - CARRIED_ANYWAY
    pins = [line.strip() for line in requirements.splitlines() if line.strip() and not line.startswith("#")]
    return [pin for pin in pins if _normalized(pin) not in installed]


def _normalized(line: str) -> str:
    """A package's name in a line, as indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>!~@;\[ ]", line.strip(), maxsplit=1)[0]).lower()


def print_saved(site: Path, whole: int, saved: dict[LeftOut, int]) -> None:
    """Print what was left out and how much stays."""
    for entry, size in saved.items():
        what = f"left out {size / MIB:7.1f} MiB" if size else "nothing matches     "
        print(f"   {what}  {entry.pattern}: {entry.reason}")
    print(f"   {size_of(site) / MIB:.0f} of {whole / MIB:.0f} MiB stay")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 1 where pip failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    installing = commands.add_parser("install", help="install wheels, without what is left out")
    installing.add_argument("wheels", type=Path, help="folder of wheels")
    installing.add_argument("site", type=Path, help="folder to install into; new")
    listing = commands.add_parser("missing", help="print the pins that a machine does not have")
    listing.add_argument("requirements", type=Path, help="file of pins")
    listing.add_argument("freeze", type=Path, help="output of pip freeze on that machine")
    options = parser.parse_args(arguments)
    if options.command == "missing":
        print(*missing(options.requirements.read_text(), options.freeze.read_text()), sep="\n")
        return 0
    try:
        install(options.wheels, options.site)
    except subprocess.CalledProcessError as error:
        print(f"pip failed (exit status {error.returncode}), see above", file=sys.stderr)
        return 1
    whole = size_of(options.site)
    print_saved(options.site, whole, remove_left_out(options.site))
    return 0


if __name__ == "__main__":
    sys.exit(main())
