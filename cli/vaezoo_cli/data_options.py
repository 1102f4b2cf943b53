"""The options that choose data: those of `vaezoo train`, and those of the commands that use a trained model."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import click

from vaezoo.errors import VaezooError
from vaezoo_cli.options import F, option_names_as_typed

if TYPE_CHECKING:
    from vaezoo import Dataset
    from vaezoo.core.scaling import Scaling
    from vaezoo.data.base import ImageSize
    from vaezoo.data.inference import Examples
    from vaezoo.examples import Model

DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(),
    metavar="FOLDER",
    help="Folder of the standard data sets, to which they are downloaded.",
)
STREAM = click.option(
    "--stream/--no-stream",
    default=None,
    show_default=False,
    help="Read the images of an image folder when they are needed.  [default: if memory is short]",
)
BAD_IMAGE = click.option(
    "--on-bad-image",
    default="error",
    show_default=True,
    metavar="ACTION",
    help="What to do with unreadable images of a folder: error or skip.",
)
LABEL_PATTERN = click.option(
    "--label-pattern",
    metavar="REGEX",
    help=r"Labels in the names of sound files: the groups of a regular expression, such as '(\d)_(\w+)_\d+'.",
)
SERIES = (
    click.option(
        "--kind",
        metavar="[series|sound|waveform|counts]",
        help="Take an array file, or a folder of .npy files, as series, a folder of sound files as spectrograms or "
        "waveforms, or an array file as counts.",
    ),
    click.option("--time-column", metavar="NAME", help="Column of a .csv file that holds the times of a recording."),
    click.option("--window", type=int, metavar="STEPS", help="Cut one recording into windows of so many steps."),
    click.option("--stride", type=int, metavar="STEPS", help="Steps between two windows.  [default: --window]"),
    click.option("--sample-rate", type=int, metavar="HZ", help="Resample sound.  [default: the rate of the files]"),
    click.option("--layer", metavar="NAME", help="The layer of a .h5ad file that holds counts.  [default: X]"),
    click.option("--label-column", metavar="NAME", help="The column of its observations that holds labels."),
    LABEL_PATTERN,
)
TOKENIZER = click.option(
    "--tokenizer",
    metavar="NAME",
    help="How the lines of texts become ids: characters, words or subwords.  [default: characters]",
)
VOCABULARY = click.option(
    "--vocabulary",
    type=int,
    metavar="N",
    help="The largest number of ids.  [default: all characters, 10,000 words, 2,000 subwords]",
)
LENGTH = click.option(
    "--length",
    type=int,
    metavar="N",
    help="Number of ids of a text, its end included.  [default: that of the longest text, up to 512]",
)
COLUMN = click.option("--column", metavar="NAME", help="The column of a .csv file that holds texts.")
LONG_TEXT = click.option(
    "--on-long-text",
    default="error",
    show_default=True,
    metavar="ACTION",
    help="What to do with texts that are too long: error or cut.",
)


def parse_image_size(context: click.Context, parameter: click.Parameter, text: str | None) -> ImageSize | None:
    """Parses `N` or `HxW`.

    Raises:
        VaezooError: If the text has another form.
    """
    if text is None:
        return None
    if not (match := re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.strip().lower())):
        raise VaezooError(f"--image-size takes pixels, not '{text}'", "for example --image-size 64, or 24x32 (HxW)")
    height, width = match.groups()
    return int(height) if width in (None, height) else (int(height), int(width))


def _options(cls: type[Any], options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """Adds options, and passes their values on as `data`, an instance of `cls`."""

    def decorate(f: F) -> F:
        @functools.wraps(f)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            data = cls(**{field.name: kwargs.pop(field.name) for field in fields(cls)})
            return f(*args, data=data, **kwargs)

        return functools.reduce(lambda command, option: option(command), reversed(options), cast("F", wrapper))

    return decorate


def training_data_options(default: str) -> Callable[[F], F]:
    """Adds the options of data to train on, and passes them on as `data`, a TrainingData.

    Args:
        default: Default of --data.
    """
    data = (
        "A data set that 'vaezoo list' shows, an image folder, a .npz, .npy, .h5ad, .csv or .parquet file, series, or "
        "texts: a .txt file, a folder of them, or a .csv file with --column."
    )
    image_size = click.option(
        "--image-size",
        callback=parse_image_size,
        metavar="PIXELS|HxW",
        help="Resize images to this height and width, such as 64 or 24x32.",
    )
    channels = click.option("--channels", metavar="[grey|colour]", help="Convert images to grey or colour.")
    columns = click.option(
        "--columns",
        multiple=True,
        metavar="NAME=KIND",
        help="Kind of a column of a table: continuous, integer, category, boolean, date, or constant or identifier, "
        "which leaves it out. May be repeated.  [default: found]",
    )
    data_option = click.option("--data", default=default, show_default=True, metavar="NAME|PATH", help=data)
    texts = (TOKENIZER, VOCABULARY, LENGTH, COLUMN, LONG_TEXT)
    images = (image_size, channels, STREAM, BAD_IMAGE)
    return _options(TrainingData, (data_option, DATA_DIR, *images, columns, *SERIES, *texts))


def data_options() -> Callable[[F], F]:
    """Adds the options of data that a trained model is applied to, and passes them on as `data`, a DataOptions."""
    data = (
        "A data set that 'vaezoo list' shows, an image, an image folder, a .npz, .npy, .h5ad, .csv or .parquet file, "
        "series, or texts: a .txt file, a folder of them, or a .csv file with --column.  [default: the data of the "
        "training]"
    )
    part = (
        "train, valid, test or all.  [default: the test split, or else the validation split; all, if the data are not "
        "split]"
    )
    return _options(
        DataOptions,
        (
            click.option("--data", metavar="NAME|PATH", help=data),
            click.option("--text", multiple=True, metavar="TEXT", help="A text instead of --data. Repeat it for more."),
            click.option("--part", metavar="PART", help=part),
            DATA_DIR,
            STREAM,
            BAD_IMAGE,
            click.option(
                "--stride",
                type=int,
                metavar="STEPS",
                help="Steps between two windows of a recording.  [default: those of a window]",
            ),
            LABEL_PATTERN,
            COLUMN,
            LONG_TEXT,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The values of the options that `training_data_options` adds."""

    data: str
    data_dir: str | None = None
    image_size: ImageSize | None = None
    channels: str | None = None
    columns: tuple[str, ...] = ()
    stream: bool | None = None
    on_bad_image: str = "error"
    kind: str | None = None
    time_column: str | None = None
    window: int | None = None
    stride: int | None = None
    sample_rate: int | None = None
    layer: str | None = None
    label_column: str | None = None
    label_pattern: str | None = None
    tokenizer: str | None = None
    vocabulary: int | None = None
    length: int | None = None
    column: str | None = None
    on_long_text: str = "error"

    def load(self, likelihood: str | None = None, scale: str | Scaling | None = None) -> Dataset:
        """Loads the data. The arguments are those of `load_data`."""
        import vaezoo
        from vaezoo.data.tables.kinds import parse_columns
        from vaezoo.data.text.corpus import TextOptions

        with option_names_as_typed(("vocabulary", "length", "on_long_text")):
            text = TextOptions(
                tokenizer=self.tokenizer,
                vocabulary=self.vocabulary,
                length=self.length,
                column=self.column,
                on_long_text=self.on_long_text,
            )
        return vaezoo.load_data(
            self.data,
            data_dir=self.data_dir,
            image_size=self.image_size,
            likelihood=likelihood,
            stream=self.stream,
            on_bad_image=self.on_bad_image,
            channels=self.channels,
            scale=scale,
            kind=self.kind,
            time_column=self.time_column,
            window=self.window,
            stride=self.stride,
            sample_rate=self.sample_rate,
            layer=self.layer,
            label_column=self.label_column,
            label_pattern=self.label_pattern,
            text=text,
            columns=parse_columns(self.columns),
        )


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The values of the options that `data_options` adds."""

    data: str | None = None
    part: str | None = None
    data_dir: str | None = None
    stream: bool | None = None
    on_bad_image: str = "error"
    stride: int | None = None
    label_pattern: str | None = None
    text: tuple[str, ...] = ()
    column: str | None = None
    on_long_text: str = "error"

    def load(self, model: Model, default_part: str | None = None) -> Examples:
        """Loads the examples for a model.

        Args:
            model: The run or export.
            default_part: The part without --part and without --data. None means the held-out one.
        """
        import vaezoo

        if self.text and self.data is not None:
            raise VaezooError("--text and --data both name the examples", "leave out one of them")
        data = [*self.text] or self.data
        return vaezoo.load_examples(
            model,
            data,
            part=self.part or (default_part if data is None else None),
            data_dir=self.data_dir,
            stream=self.stream,
            on_bad_image=self.on_bad_image,
            stride=self.stride,
            label_pattern=self.label_pattern,
            column=self.column,
            on_long_text=self.on_long_text,
        )
