"""Options and arguments that several commands share, and what they mean."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from vaezoo.errors import VaezooError

if TYPE_CHECKING:
    from vaezoo import Run
    from vaezoo.plots.loaded_model import LoadedModel
    from vaezoo.runtime import OnnxVAE

F = TypeVar("F", bound=Callable[..., Any])

source_argument = click.argument("source", required=False, metavar="[RUN|MODEL|PRETRAINED|EXPORT]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
checkpoint_option = click.option(
    "--checkpoint",
    default="best",
    show_default=True,
    metavar="NAME|STEP",
    help="best on the validation split, last, or a step.",
)
limit_option = click.option("--limit", type=int, metavar="N", help="Use N evenly spaced examples.  [default: all]")


def parse_resolution_option(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, int] | None:
    """Parses `N` or `HxW`. Raises VaezooError if the text has another form."""
    from vaezoo.core.coordinates import parse_resolution

    return None if text is None else parse_resolution(text)


resolution_option = click.option(
    "--resolution",
    callback=parse_resolution_option,
    metavar="PIXELS|HxW",
    help="Height and width of the images of a decoder of coordinates, such as that of cppn-vae.",
)
tile_option = click.option(
    "--tile", type=int, metavar="PIXELS", help="Run an export of free height and width on tiles of so many pixels."
)
overlap_option = click.option(
    "--overlap", type=int, metavar="PIXELS", help="Pixels that two tiles share.  [default: 64]"
)
TEMPERATURE = click.option(
    "--temperature",
    type=float,
    metavar="NUMBER",
    help="Of the draw of a text: 1 is that of the model, 0 takes the likeliest.",
)
TOP_K = click.option("--top-k", type=int, metavar="N", help="Draw from the N likeliest ids of a text.")
BEAM = click.option("--beam", type=int, metavar="N", help="Find the likeliest texts by a beam search of width N.")


def drawing_options(f: F) -> F:
    """Adds the options of how the ids of texts are chosen, and passes them on as `drawing`, a Drawing or None."""

    @functools.wraps(f)
    def wrapper(*args: Any, temperature: float | None, top_k: int | None, beam: int | None, **kwargs: Any) -> Any:
        from vaezoo.core.drawing import Drawing

        given = {"temperature": temperature, "top_k": top_k, "beam": beam}
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return f(*args, drawing=Drawing(**values) if values else None, **kwargs)

    return TEMPERATURE(TOP_K(BEAM(cast("F", wrapper))))


def check_overlap(tile: int | None, overlap: int | None) -> int:
    """Returns the pixels that tiles share. Raises VaezooError if there are no tiles."""
    from vaezoo.runtime.tiling import OVERLAP

    if tile is None and overlap is not None:
        raise VaezooError("--overlap has no effect without --tile", "give --tile too")
    return OVERLAP if overlap is None else overlap


def out_option(default: str) -> Callable[[F], F]:
    """Adds --out, a file. The default is the file `default` in `vaezoo.plots.output.default_output_dir`."""
    help_text = f"Output file.  [default: {default} in the run folder, or in EXPORT-outputs/]"
    return click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help=help_text)


def data_out_option(name: str) -> Callable[[F], F]:
    """Adds --out, a file of data or a folder of images. The default is a file `name`, where that of `out_option` is."""
    help_text = f"Output file, whose suffix sets the format, or a new folder for images.  [default: {name}.png or "
    help_text += f"{name} in the usual format of other data, in the run folder, or in EXPORT-outputs/]"
    return click.option("--out", type=click.Path(), metavar="FILE|FOLDER/", help=help_text)


def parse_options(texts: tuple[str, ...]) -> dict[str, str]:
    """Splits texts of the form `name=value`.

    Raises:
        VaezooError: If a text has another form.
    """
    for text in texts:
        if "=" not in text:
            raise VaezooError(f"option '{text}' is not of the form name=value", f"write -o {text}=VALUE")
    pairs = (text.split("=", 1) for text in texts)
    return {name.strip().replace("-", "_"): value.strip() for name, value in pairs}


def extra_hint(argument: str) -> str | None:
    """Returns what a word that belongs to no option was probably meant to be, or None."""
    from vaezoo.training.config import AUGMENTATIONS

    if argument.partition("=")[0] in AUGMENTATIONS:
        return "separate augmentations by commas, without spaces: --augment hflip,shift=2"
    return f"repeat -o before each option: -o {argument}" if "=" in argument else None


@contextlib.contextmanager
def option_names_as_typed(names: Iterable[str]) -> Iterator[None]:
    """Rewrites errors of the block so that they name options as a user types them.

    'grad_accum_steps' becomes --grad-accum-steps, and lr=1 becomes --lr 1.
    """
    known = "|".join(names)
    pattern = re.compile(rf"(?:option )?'({known})'|\b({known})=")

    def as_typed(match: re.Match[str]) -> str:
        quoted, assigned = match.groups()
        return f"--{(quoted or assigned).replace('_', '-')}" + (" " if assigned else "")

    try:
        yield
    except VaezooError as e:
        e.message, e.hint = pattern.sub(as_typed, e.message), pattern.sub(as_typed, e.hint)
        raise


def open_run(name: str | None, checkpoint: str, *, warn: bool = True) -> Run:
    """Loads the run that a user names, by default with a warning if its training has not finished."""
    from vaezoo import load

    run = load(name, checkpoint)
    if warn and not run.result and run.imported is None:
        click.echo(
            f"vaezoo: warning: the training of {run.path} has not finished; using the checkpoint of step "
            f"{run.checkpoint.step}",
            err=True,
        )
    return run


def open_export(source: str | None, checkpoint: str) -> OnnxVAE | None:
    """Opens an export folder in ONNX Runtime. Returns None if `source` is not an export.

    Raises:
        VaezooError: If a user chose a checkpoint of an export, which contains only one.
    """
    from vaezoo import runtime
    from vaezoo.runtime.export_files import is_export

    if source is None or not is_export(source):
        return None
    if checkpoint != "best":
        raise VaezooError(f"{source} is an export, which contains one checkpoint", "leave out --checkpoint")
    return runtime.load(source)


def load_model(source: str | None, checkpoint: str, *, warn: bool = True) -> LoadedModel:
    """Loads the run or export that a user names.

    Args:
        source: A run folder, model, pretrained model or export folder, or None for the newest run.
        checkpoint: "best", "last" or a step.
        warn: As in `open_run`.
    """
    from vaezoo.plots.loaded_model import LoadedModel, from_run

    export = open_export(source, checkpoint)
    if export is not None:
        return LoadedModel(Path(source or ""), export, export.data)
    return from_run(open_run(source, checkpoint, warn=warn))


def print_json(value: object) -> None:
    """Prints a value as JSON on stdout."""
    click.echo(json.dumps(value, indent=2))
