"""The entry point: the group of commands, and the one place where errors become two lines and an exit code."""

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
from vaezoo.errors import StorageError, VaezooError, VaezooWarning, format_error, one_line
from vaezoo_cli.commands.bench import bench
from vaezoo_cli.commands.check import check
from vaezoo_cli.commands.doctor import doctor
from vaezoo_cli.commands.encode import encode
from vaezoo_cli.commands.eval import eval_command
from vaezoo_cli.commands.export import export, verify
from vaezoo_cli.commands.list import list_command
from vaezoo_cli.commands.new_plugin import new_plugin
from vaezoo_cli.commands.plot import plot, reconstruct, sample
from vaezoo_cli.commands.pretrained import pretrained
from vaezoo_cli.commands.recipes import recipes
from vaezoo_cli.commands.show import show
from vaezoo_cli.commands.train import train

DEFECT = 1
# What a user may have left out who wants only vaezoo.runtime, and the packages that bring it.
OPTIONAL = {
    name: name for name in ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "safetensors", "numpy")
}
OPTIONAL |= {"rich": "rich", "PIL": "pillow", "matplotlib": '"vaezoo[plot]"'}


class Interrupted(BaseException):
    """A request to end that click has not seen: it would write an empty line before ours."""


class Commands(click.Group):
    """A group that passes interrupts on."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as e:
            raise Interrupted from e


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 2 usage or configuration, 3 bad input file or plugin, 4 training diverged, "
    "5 input/output, 130 interrupted, 143 terminated, 1 a defect of vaezoo or of a plugin.",
)
@click.version_option(version("vaezoo"), prog_name="vaezoo")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def vaezoo(context: click.Context, debug: bool) -> None:
    """Variational autoencoders: list, train, sample, export to ONNX."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    *(list_command, show, recipes, pretrained, train, eval_command, sample, reconstruct, encode, plot),
    *(export, verify, bench, doctor, new_plugin, check),
):
    vaezoo.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves with the documented exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    warnings.showwarning = show_warning
    # --debug is taken wherever it stands: who needs it has just typed the rest.
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
    """Writes our own warnings in one line on stderr, and others as Python does."""
    if issubclass(category, VaezooWarning):
        click.echo(f"vaezoo: warning: {one_line(str(message))}", err=True)
    else:
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))


def report(error: BaseException) -> int:
    """Writes an error in two lines on stderr and returns its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else DEFECT
    if isinstance(error, Interrupted | KeyboardInterrupt | click.Abort):
        stopped = error.__cause__ if isinstance(error.__cause__, Stopped) else error
        stopped = stopped if isinstance(stopped, Stopped) else Stopped(signal.SIGINT)
        return print_error(str(stopped), stopped.hint, stopped.exit_code)
    if isinstance(error, VaezooError):
        return print_error(error.message, error.hint, error.exit_code)
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "vaezoo"
        hint = f"'{command} --help' shows what it takes"
        if isinstance(error, click.NoSuchOption):
            hint += "; options of a model are given as -o name=value"
        return print_error(error.format_message().rstrip("."), hint, error.exit_code)
    if isinstance(error, ModuleNotFoundError) and error.name in OPTIONAL:
        return print_error(f"this needs {error.name}, which is not installed", f"pip install {OPTIONAL[error.name]}", 2)
    if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return print_error(what, "check the path, the permissions and the disk's space", StorageError.exit_code)
    return print_error(f"unexpected {format_error(error)}", "repeat with --debug and report what it prints", DEFECT)


def print_error(message: str, hint: str, code: int) -> int:
    """Writes the two lines of an error."""
    click.echo(f"vaezoo: error: {one_line(message)}\nhint: {one_line(hint)}", err=True)
    return code
