"""Options and arguments that several commands share."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vaezoo.errors import VaezooError

if TYPE_CHECKING:
    from vaezoo import Run
    from vaezoo.runtime import OnnxVAE

F = TypeVar("F", bound=Callable[..., Any])

source_argument = click.argument("source", required=False, metavar="[RUN|MODEL|PRETRAINED|EXPORT]")
json_option = click.option("--json", "as_json", is_flag=True, help="Write the data as JSON on stdout.")
checkpoint_option = click.option(
    "--checkpoint", default="best", show_default=True, help="best (on the validation part), last, or a step."
)


def parse_options(texts: tuple[str, ...]) -> dict[str, str]:
    """Splits `name=value` texts.

    Raises:
        VaezooError: If a text has another form.
    """
    for text in texts:
        if "=" not in text:
            raise VaezooError(f"option '{text}' is not of the form name=value", f"write -o {text}=VALUE")
    pairs = (text.split("=", 1) for text in texts)
    return {name.strip().replace("-", "_"): value.strip() for name, value in pairs}


@contextlib.contextmanager
def option_names_as_typed(names: Iterable[str]) -> Iterator[None]:
    """Makes errors of the block name settings as they are typed: 'grad_accum_steps' becomes --grad-accum-steps, lr=1 --lr 1."""
    known = "|".join(names)
    pattern = re.compile(rf"(?:option )?'({known})'|\b({known})=")

    def typed(found: re.Match[str]) -> str:
        quoted, assigned = found.groups()
        return f"--{(quoted or assigned).replace('_', '-')}" + (" " if assigned else "")

    try:
        yield
    except VaezooError as e:
        e.message, e.hint = pattern.sub(typed, e.message), pattern.sub(typed, e.hint)
        raise


def open_run(name: str | None, checkpoint: str) -> Run:
    """Loads the run that a user means and warns if its training did not end well."""
    run = find_run(name, checkpoint)
    if not run.result:
        click.echo(
            f"vaezoo: warning: the training of {run.path} is not finished; taking its checkpoint of step "
            f"{run.checkpoint.step}",
            err=True,
        )
    return run


def open_export(source: str | None, checkpoint: str) -> OnnxVAE | None:
    """Opens an exported folder in ONNX Runtime; None if the user means a run.

    Raises:
        VaezooError: If a checkpoint was asked for: an export holds one.
    """
    from vaezoo import runtime
    from vaezoo.runtime.manifest import is_export

    if source is None or not is_export(source):
        return None
    if checkpoint != "best":
        raise VaezooError(f"{source} is an export, which holds one checkpoint", "leave out --checkpoint")
    return runtime.load(source)


def find_run(name: str | None, checkpoint: str) -> Run:
    """Loads a run: a folder, the newest run of a model, a pretrained model, or without a name the newest run of all."""
    from vaezoo import list_models, pretrained
    from vaezoo.errors import InputError, suggest
    from vaezoo.training.run import load, newest_run

    if name is None:
        return load(newest_run(), checkpoint)
    models = [n for r in list_models() for n in (r.name, r.full_name)]
    if not (Path(name) / "run.json").exists():
        if name in models:
            return load(newest_run(name), checkpoint)
        if name in pretrained.names():
            return pretrained.load_pretrained(name, checkpoint)
    if Path(name).exists():
        return load(name, checkpoint)
    hint = suggest(name, [*models, *pretrained.names()], "give a run folder, or a name of 'vaezoo pretrained'")
    raise InputError(f"there is no run '{name}'", hint)


def suffixes_of(out: str | None, possible: tuple[str, ...]) -> tuple[str, ...]:
    """Returns how the names of the files end that are wanted: as `out` does, or in all possible ways.

    Raises:
        VaezooError: If `out` promises another format.
    """
    if out is None:
        return possible
    suffix = Path(out).suffix.lower()
    if suffix not in possible:
        formats = " or ".join(s.removeprefix(".").upper() for s in possible)
        raise VaezooError(f"'{out}' is no name of a {formats}", f"end it in {' or '.join(possible)}")
    return (suffix,)


def default_output_dir(folder: Path) -> Path:
    """Returns where files about a model are put by default: beside it, but nothing into the package."""
    import vaezoo

    packaged = Path(vaezoo.__file__).parent in folder.parents
    return Path("pretrained") / folder.name if packaged else folder


def print_json(value: object) -> None:
    """Writes data on stdout."""
    click.echo(json.dumps(value, indent=2))
