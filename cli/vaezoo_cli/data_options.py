"""The options that choose the data of a command."""

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
    from vaezoo.core.scaling import Scaling
    from vaezoo_cli.loaded_model import LoadedModel


def data_options(default: str | None = None) -> Callable[[F], F]:
    """Adds --data, --data-dir, --image-size, --stream and --on-bad-image, and passes them on as `data`, a DataOptions.

    Args:
        default: Default of --data.
    """
    data = "A data set that 'vaezoo list' shows, an image folder, or a .npz or .npy file."
    data_dir = "Folder of the standard data sets, to which they are downloaded."
    stream = "Read the images of an image folder when they are needed.  [default: if memory is short]"
    bad_image = "What to do with unreadable images of a folder: error or skip."
    options = (
        click.option("--data", default=default, show_default=default is not None, metavar="NAME|PATH", help=data),
        click.option("--data-dir", type=click.Path(), metavar="FOLDER", help=data_dir),
        click.option("--image-size", type=int, metavar="PIXELS", help="Resize images to this height and width."),
        click.option("--stream/--no-stream", default=None, show_default=False, help=stream),
        click.option("--on-bad-image", default="error", show_default=True, metavar="ACTION", help=bad_image),
    )

    def decorate(f: F) -> F:
        @functools.wraps(f)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            data = DataOptions(**{field.name: kwargs.pop(field.name) for field in fields(DataOptions)})
            return f(*args, data=data, **kwargs)

        return functools.reduce(lambda command, option: option(command), reversed(options), cast("F", wrapper))

    return decorate


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The values of the options that `data_options` adds."""

    data: str | None = None
    data_dir: str | None = None
    image_size: int | None = None
    stream: bool | None = None
    on_bad_image: str = "error"

    def load(self, likelihood: str | None = None, scale: str | Scaling = "unit") -> Dataset | None:
        """Loads the data of --data, or returns None without --data. `scale` is that of `load_data`."""
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
            scale=scale,
        )

    def load_for(self, model: LoadedModel) -> Dataset:
        """Loads the data of --data, or without --data those that the model was trained on.

        Raises:
            UnsupportedDataError: If their shape is not that of the model.
        """
        dataset = self.load() or model.load_data(self.data_dir)
        if dataset.spec.shape != model.shape:
            raise UnsupportedDataError(
                f"{model.folder} takes shape {model.shape}, but '{dataset.spec.name}' has {dataset.spec.shape}",
                "give data of that shape; --image-size changes the height and width of images",
            )
        return dataset
