"""The parts of the pages that are generated from the presets' files: ``python -m tests.docs.generated`` writes them.

A part stands between ``<!--generated:NAME-->`` and ``<!--end:NAME-->``; what is between the two is replaced.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tests.docs.pages import README, ROOT
from verl_ispo.explained.listings import markdown_index, markdown_kinds, markdown_table
from verl_ispo.method_presets import method_names, read_preset

"""Names of each kind in the README, which has to stay short."""


def generated_parts() -> dict[tuple[Path, str], str]:
    """From page and name to the Markdown of a part."""
    presets = [read_preset(name) for name in method_names()]
    methods, index = ROOT / "docs" / "methods.md", ROOT / "docs" / "paper_index.md"
    return {
        (README, "kinds"): markdown_kinds(presets),
        (methods, "kinds"): markdown_kinds(presets),
        (methods, "methods"): markdown_table(presets),
        (index, "keys"): markdown_index(presets),
    }


def with_part(text: str, name: str, part: str) -> str:
    """A page with one part replaced.

    Raises:
        ValueError: the page does not have the two marks, once each.
    """
    begin, end = f"<!--generated:{name}-->\n", f"<!--end:{name}-->"
    if (text.count(begin), text.count(end)) != (1, 1):
        raise ValueError(f"the page has to hold {begin.strip()} and {end} once each")
    return re.sub(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", lambda _: f"\n{part}\n\n", text, flags=re.DOTALL)


def main() -> None:
    """Write every part into its page."""
    argparse.ArgumentParser(description="Write the generated parts of README and docs.").parse_args()
    for (page, name), part in generated_parts().items():
        page.write_text(with_part(page.read_text(encoding="utf-8"), name, part), encoding="utf-8")
        print(f"{page.relative_to(ROOT)}: {name}")


if __name__ == "__main__":
    main()
