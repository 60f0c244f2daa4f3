"""Text in Hydra's grammar, read back by Hydra's own parser."""

from __future__ import annotations

from hydra.core.override_parser.overrides_parser import OverridesParser

from verl_ispo.preflight.hydra_overrides import quoted, quoted_list

TEXTS = ["/plain/path", "/a b/c=d,[e]", "it's", "back\\slash", "ends\\", "both\\'", "{brace}: #"]


def test_any_text_is_quoted_for_hydra() -> None:
    parser = OverridesParser.create()
    assert [parser.parse_override(f"key={quoted(text)}").value() for text in TEXTS] == TEXTS
    assert parser.parse_override(f"key={quoted_list(TEXTS)}").value() == TEXTS
