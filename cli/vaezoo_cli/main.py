"""The group of commands, and the one place that turns errors into two lines and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import TextIO

import click

from vaezoo.core.signals import Stopped
from vaezoo.errors import RENAMED, StorageError, VaezooError, VaezooWarning, format_error, one_line, suggest
from vaezoo_cli.commands.bench import bench
from vaezoo_cli.commands.check import check
from vaezoo_cli.commands.doctor import doctor
from vaezoo_cli.commands.encode import encode
from vaezoo_cli.commands.eval import eval_command
from vaezoo_cli.commands.export import export
from vaezoo_cli.commands.list import list_command
from vaezoo_cli.commands.new_plugin import new_plugin
from vaezoo_cli.commands.plot import plot
from vaezoo_cli.commands.pretrained import pretrained
from vaezoo_cli.commands.recipes import recipes
from vaezoo_cli.commands.reconstruct import reconstruct
from vaezoo_cli.commands.sample import sample
from vaezoo_cli.commands.show import show
from vaezoo_cli.commands.train import train
from vaezoo_cli.commands.verify import verify

DEFECT = 1  # exit code
# Packages that may be missing, because vaezoo.runtime works without them. Import name -> package.
REQUIRED_PACKAGES = {"PIL": "pillow"} | {
    name: name for name in ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "safetensors", "numpy", "rich")
}
EXTRAS = {"matplotlib": "plot"}  # import name -> extra that installs it


class Interrupted(BaseException):
    """An interrupt that click does not recognise. Click would print an empty line before our message."""


class Commands(click.Group):
    """A group that hides interrupts from click."""

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
    "plugin, 4 training diverged, 5 input/output, 130 interrupted, 143 terminated.",
)
@click.version_option(version("vaezoo"), prog_name="vaezoo")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def vaezoo(context: click.Context, debug: bool) -> None:
    """Train, evaluate and export variational autoencoders."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    *(list_command, show, recipes, pretrained, train, eval_command, sample, reconstruct, encode, plot),
    *(export, verify, bench, doctor, new_plugin, check),
):
    vaezoo.add_command(command)


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
        code = report(e)
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


def report(error: BaseException) -> int:
    """Prints an error as two lines on stderr, and returns its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else DEFECT
    if isinstance(error, Interrupted | KeyboardInterrupt | click.Abort):
        stopped = error.__cause__ if isinstance(error.__cause__, Stopped) else error
        stopped = stopped if isinstance(stopped, Stopped) else Stopped(signal.SIGINT)
        return print_error(str(stopped), stopped.hint, stopped.exit_code)
    if isinstance(error, VaezooError):
        return print_error(error.message, error.hint, error.exit_code)
    if isinstance(error, click.ClickException):
        return print_error(*usage_error(error), error.exit_code)
    if isinstance(error, ModuleNotFoundError) and error.name in {*REQUIRED_PACKAGES, *EXTRAS}:
        return print_error(f"this needs {error.name}, which is not installed", package_hint(error.name), 2)
    if isinstance(error, BrokenPipeError):  # the reader of a pipe, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError):
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return print_error(message, "check the path, the permissions and the free disk space", StorageError.exit_code)
    return print_error(f"unexpected {format_error(error)}", "repeat with --debug and report the output", DEFECT)


def usage_error(error: click.ClickException) -> tuple[str, str]:
    """Returns message and hint of an error that click found in the command line."""
    message, context = error.format_message().rstrip("."), error.ctx if isinstance(error, click.UsageError) else None
    hint = f"'{context.command_path if context else 'vaezoo'} --help' shows the usage"
    if isinstance(error, click.NoSuchOption):
        options = [name for parameter in context.command.params for name in parameter.opts] if context else []
        if RENAMED.get(error.option_name) in options:
            return error.message.rstrip("."), suggest(error.option_name, options, hint)
        hint += "; options of a model are given as -o name=value"
    return message, hint


def package_hint(module: str) -> str:
    """Returns how to install the package of a module."""
    from vaezoo.core.dependencies import install_hint

    return install_hint(EXTRAS[module]) if module in EXTRAS else f"pip install {REQUIRED_PACKAGES[module]}"


def print_error(message: str, hint: str, code: int) -> int:
    """Prints the two lines of an error, and returns its exit code."""
    click.echo(f"vaezoo: error: {one_line(message)}\nhint: {one_line(hint)}", err=True)
    return code
