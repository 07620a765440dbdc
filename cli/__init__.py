"""concept-saliency: the method from the shell."""

from __future__ import annotations

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code (2 for input that cannot be used)."""
    from . import demo, evaluate

    parser = argparse.ArgumentParser(prog="concept-saliency", description="See where Flux sees each word you type.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in (("demo", demo), ("evaluate", evaluate)):
        summary = module.__doc__.split(": ", 1)[1].strip()
        sub = commands.add_parser(name, help=summary, description=summary, epilog=module.EXAMPLES,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(sub)
        sub.set_defaults(run=module.main)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except ValueError as error:
        print(f"concept-saliency {args.command}: {error}", file=sys.stderr)
        return 2
