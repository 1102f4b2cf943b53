"""The group of commands, and the one place that turns errors into two lines and an exit code."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import TextIO

import click

from vaezoo.core.signals import Stopped
from vaezoo.errors import RENAMED, StorageError, VaezooError, VaezooWarning, format_error, one_line, safe_repr, suggest

DEFECT = 1  # exit code
NO_HINT = "--debug shows where the error comes from"
# Command -> module and attribute. A command is imported when it is used, because all together take a third of the time
# of `vaezoo list`.
COMMANDS = {
    "list": "list:list_command",
    "show": "show:show",
    "recipes": "recipes:recipes",
    "pretrained": "pretrained:pretrained",
    "train": "train:train",
    "sweep": "sweep:sweep",
    "fit-prior": "fit_prior:fit_prior",
    "import": "import_folder:import_folder",
    "compare": "compare:compare",
    "eval": "eval:eval_command",
    "score": "score:score",
    "sample": "sample:sample",
    "reconstruct": "reconstruct:reconstruct",
    "encode": "encode:encode",
    "plot": "plot:plot",
    "explore": "explore:explore",
    "export": "export:export",
    "verify": "verify:verify",
    "bench": "bench:bench",
    "doctor": "doctor:doctor",
    "new-plugin": "new_plugin:new_plugin",
    "check": "check:check",
}
# Packages that may be missing, because vaezoo.runtime works without them. Import name -> package.
REQUIRED_PACKAGES = {"PIL": "pillow"} | {
    name: name for name in ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "safetensors", "numpy", "rich")
}
EXTRAS = {"matplotlib": "plot"}  # import name -> extra that installs it


class Interrupted(BaseException):
    """An interrupt that click does not recognise. Click would print an empty line before our message."""


class Commands(click.Group):
    """A group that imports its commands when they are used, and hides interrupts from click."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, attribute = COMMANDS[cmd_name].split(":")
            command: click.Command = getattr(import_module(f"vaezoo_cli.commands.{module}"), attribute)
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            message = f"no command named '{safe_repr(args[0])}'"
            raise VaezooError(message, suggest(args[0], COMMANDS, "'vaezoo --help' lists the commands"))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as e:
            raise Interrupted from e


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 a defect of vaezoo or of a plugin, 2 usage or configuration, 3 bad input file or "
    "plugin, 4 training diverged, only got worse or failed in a sweep, 5 input/output, 130 interrupted, "
    "143 terminated.",
)
@click.version_option(version("vaezoo"), prog_name="vaezoo")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def vaezoo(context: click.Context, debug: bool) -> None:
    """Train, evaluate and export variational autoencoders."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line, and exits with the documented exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    warnings.showwarning = show_warning
    # Users who need --debug append it to the command that failed, so it is accepted everywhere.
    arguments = [a for a in arguments if a != "--debug"]
    try:
        code = vaezoo.main(arguments, prog_name="vaezoo", standalone_mode=False)
    except BaseException as e:
        if debug and not isinstance(e, SystemExit):
            traceback.print_exc()
        code = report(e, arguments)
    sys.exit(code if isinstance(code, int) else 0)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints vaezoo's warnings as one line on stderr, and others as Python does."""
    if issubclass(category, VaezooWarning):
        click.echo(f"vaezoo: warning: {one_line(str(message))}", err=True)
    else:
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))


def report(error: BaseException, arguments: Sequence[str] = ()) -> int:
    """Prints an error as two lines on stderr, and returns its exit code. The hint may name the command."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else DEFECT
    if isinstance(error, Interrupted | KeyboardInterrupt | click.Abort):
        stopped = error.__cause__ if isinstance(error.__cause__, Stopped) else error
        stopped = stopped if isinstance(stopped, Stopped) else Stopped(signal.SIGINT)
        return print_error(str(stopped), stopped.hint, stopped.exit_code)
    if isinstance(error, VaezooError):
        return print_error(error.message, error.hint, error.exit_code)
    if isinstance(error, click.ClickException):
        return print_error(*usage_error(error, arguments), error.exit_code)
    if isinstance(error, ModuleNotFoundError) and error.name in {*REQUIRED_PACKAGES, *EXTRAS}:
        return print_error(f"this needs {error.name}, which is not installed", package_hint(error.name), 2)
    if isinstance(error, BrokenPipeError):  # the reader of a pipe, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError):
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return print_error(message, "check the path, the permissions and the free disk space", StorageError.exit_code)
    return print_error(f"unexpected {format_error(error)}", "repeat with --debug and report the output", DEFECT)


def usage_error(error: click.ClickException, arguments: Sequence[str]) -> tuple[str, str]:
    """Returns message and hint of an error that click found in the command line."""
    message, context = error.format_message().rstrip("."), error.ctx if isinstance(error, click.UsageError) else None
    command = " ".join(["vaezoo", *[name for name in arguments[:1] if name in COMMANDS]])
    hint = f"'{context.command_path if context else command} --help' shows the usage"
    if isinstance(error, click.NoSuchOption):
        options = [name for parameter in context.command.params for name in parameter.opts] if context else []
        if RENAMED.get(error.option_name) in options:
            return error.message.rstrip("."), suggest(error.option_name, options, hint)
        hint += "; options of a model are given as -o name=value"
    if extra := re.search(r"unexpected extra arguments? \(([^ )]*)", message):
        from vaezoo_cli.options import extra_hint

        hint = extra_hint(extra[1]) or hint
    return message, hint


def package_hint(module: str) -> str:
    """Returns how to install the package of a module."""
    from vaezoo.core.dependencies import install_hint

    return install_hint(EXTRAS[module]) if module in EXTRAS else f"pip install {REQUIRED_PACKAGES[module]}"


def print_error(message: str, hint: str, code: int) -> int:
    """Prints the two lines of an error, and returns its exit code. An error of a plugin may have no hint."""
    click.echo(f"vaezoo: error: {one_line(message)}\nhint: {one_line(hint) or NO_HINT}", err=True)
    return code
