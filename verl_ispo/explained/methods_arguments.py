"""The command line of the presets: ``verl-ispo methods``."""

from __future__ import annotations

import argparse

from verl_ispo.command_line import run_command
from verl_ispo.method_presets import method_names, read_preset


def add_methods_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``verl-ispo methods``."""
    parser = commands.add_parser(
        "methods",
        help="list the method presets, or explain one: rule, source, constants, cost, its advantages on an example",
        description="Without a name: lists the presets for method=NAME, what each changes against GRPO, where its rule "
        "is from, what it needs of a batch, and what it costs beside GRPO. With names: explains these, each constant "
        "with its source, and shows their advantages on a small made-up batch. Exits with 2 for an unknown name.",
        epilog="example: verl-ispo methods ispo_guarded dapo",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="explain these (default: list all)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--all", action="store_true", help="list also what is not built, with the reason")
    form.add_argument("--names-only", action="store_true", help="print the names, one per line")
    form.add_argument("--markdown", action="store_true", help="print the table of docs/methods.md")
    form.add_argument("--kinds", action="store_true", help="print the table of names by what a preset replaces")
    form.add_argument("--index", action="store_true", help='print "Other methods" of docs/paper_index.md')


def run_methods(options: argparse.Namespace) -> int:
    """Run ``verl-ispo methods``; returns the exit status."""

    def work() -> None:
        # both import torch, which other subcommands do not need
        from verl_ispo.explained import listings
        from verl_ispo.explained.explanation import explanation

        presets = [read_preset(name) for name in options.names or method_names()]
        if options.names_only:
            print("\n".join(preset.name for preset in presets))
        elif options.markdown:
            print(listings.markdown_table(presets))
        elif options.kinds:
            print(listings.markdown_kinds(presets))
        elif options.index:
            print(listings.markdown_index(presets))
        elif options.all or not options.names:
            print("\n\n".join(map(listings.summary, presets)))
            if options.all:
                print(f"\n{listings.not_built()}")
        else:
            print("\n\n".join(map(explanation, presets)))

    return run_command("verl-ispo methods", work)
