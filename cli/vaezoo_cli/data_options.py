"""The options that say which data a command takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import click

from vaezoo.errors import UnsupportedDataError
from vaezoo_cli.options import F

if TYPE_CHECKING:
    from vaezoo import Dataset
    from vaezoo_cli.sources import LoadedModel


def data_options(default: str | None = None) -> Callable[[F], F]:
    """Adds --data, --data-dir, --image-size, --stream and --on-bad-image, and hands them over as one, `choice`."""
    what = "Data set: digits, shapes, mnist ... (see 'vaezoo list'), an image folder, or a .npz or .npy file."
    stream = "Leave an image folder's images in their files until needed  [default: where memory is short]"
    bad = "Images of a folder that cannot be read: error, or skip to go on without them."
    options = (
        click.option("--data", default=default, show_default=default is not None, metavar="NAME|PATH", help=what),
        click.option("--data-dir", type=click.Path(), help="Where mnist, cifar10 ... lie or are downloaded to."),
        click.option("--image-size", type=int, metavar="PIXELS", help="Bring images to this height and width."),
        click.option("--stream/--no-stream", default=None, show_default=False, help=stream),
        click.option("--on-bad-image", default="error", show_default=True, metavar="HOW", help=bad),
    )

    def add(f: F) -> F:
        @functools.wraps(f)
        def gathered(*args: Any, **others: Any) -> Any:
            choice = DataOptions(**{option.name: others.pop(option.name) for option in fields(DataOptions)})
            return f(*args, choice=choice, **others)

        return functools.reduce(lambda command, option: option(command), reversed(options), cast("F", gathered))

    return add


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What the options of `data_options` say."""

    data: str | None = None
    data_dir: str | None = None
    image_size: int | None = None
    stream: bool | None = None
    on_bad_image: str = "error"

    def named(self, likelihood: str | None = None) -> Dataset | None:
        """Loads the data that are named, if there are."""
        import vaezoo

        if self.data is None:
            return None
        return vaezoo.load_data(
            self.data,
            data_dir=self.data_dir,
            image_size=self.image_size,
            likelihood=likelihood,
            stream=self.stream,
            on_bad_image=self.on_bad_image,
        )

    def load(self, source: LoadedModel) -> Dataset:
        """Loads the data that are named, else those that the model was trained on.

        Raises:
            UnsupportedDataError: If the model does not take them.
        """
        dataset = self.named() or source.load_data(self.data_dir)
        if dataset.spec.shape != source.shape:
            raise UnsupportedDataError(
                f"{source.folder} takes shape {source.shape}, '{dataset.spec.name}' has {dataset.spec.shape}",
                "give data of that shape; --image-size changes height and width alone",
            )
        return dataset
