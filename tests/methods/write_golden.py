"""Write the golden files of the references: ``python -m tests.methods.write_golden [PRESET...]`` (default: all).

The numbers come from the references, never from the methods, so a file says what the rule is and not what was built.
Write one again when a reference was changed on purpose, and read the difference.
"""

from __future__ import annotations

import argparse
import json

from tests.methods.golden_references import GOLDEN, golden_sample
from tests.methods.preset_settings import presets_with_reference


def main() -> None:
    """Write the files of some presets, or of all."""
    parser = argparse.ArgumentParser(description="Write the golden files of the methods' references.")
    parser.add_argument("names", nargs="*", metavar="PRESET", help="only these (default: all with a reference)")
    names, presets = parser.parse_args().names, presets_with_reference()
    unknown = sorted(set(names) - set(presets))
    if unknown:
        parser.error(f"no preset with a reference: {' '.join(unknown)}; known: {' '.join(presets)}")
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in names or presets:
        parts = golden_sample(presets[name])
        lines = [
            f'"{part}": {{\n'
            + ",\n".join(f"  {json.dumps(title)}: {json.dumps(rows)}" for title, rows in batches.items())
            + "\n}"
            for part, batches in parts.items()
        ]
        (GOLDEN / f"{name}.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
