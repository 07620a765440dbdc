"""concept-saliency: the method from the shell."""

from __future__ import annotations

from importlib import import_module

try:
    import click
except ModuleNotFoundError as error:  # the pack's nodes do without it
    raise SystemExit("The shell commands need the 'headless' extra: pip install 'concept-saliency[headless]'") from error

from .. import __version__

COMMANDS = ("demo", "generate", "image", "batch", "inspect", "evaluate")


class Unusable(click.ClickException):
    """Input that cannot be used: exit code 2."""

    exit_code = 2


class Shell(click.Group):
    """Subcommands by name, each a module here with a click command `command`, imported when it is needed."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return import_module(f".{name}", __package__).command if name in COMMANDS else None

    def invoke(self, context: click.Context):
        """Run a subcommand; what the package refuses with a ValueError is the user's input."""
        try:
            return super().invoke(context)
        except ValueError as error:
            raise Unusable(str(error)) from error


@click.group(cls=Shell, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="concept-saliency")
def shell() -> None:
    """See where Flux sees each word you type.

    Exit codes: 0 all well, 1 some pictures of a batch failed, 2 input that cannot be used.
    """


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    try:
        shell.main(argv, prog_name="concept-saliency")
    except SystemExit as done:  # click's own way to end
        return int(done.code or 0)
    return 0
