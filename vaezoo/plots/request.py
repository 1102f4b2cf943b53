"""The input and the output of a plot."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from vaezoo.errors import VaezooError
from vaezoo.plots.loaded_model import LoadedModel, from_run, load_model, require_images
from vaezoo_cli.data_options import DataOptions
from vaezoo_cli.options import default_output_dir, open_run

if TYPE_CHECKING:
    from vaezoo import Examples, Run


@dataclass(frozen=True, kw_only=True)
class PlotRequest:
    """What to draw. Each kind of plot uses some of the fields.

    Attributes:
        source: A run folder, model, pretrained model or export folder, or None for the newest run.
        checkpoint: "best", "last" or a step.
        count: Number of images, pairs, values or examples.
        data: The options that choose the data.
        seed: Seed of latents, or of the choice of held-out images.
        dims: Latent dimensions, as the user typed them.
        label: The label of an attribute vector, or of samples from a conditional model, as the user typed it.
        factor: Index of the label, if each example has several.
        suffixes: Suffixes of the files to draw.
        run: The run itself, if a program has loaded it. Then `source` and `checkpoint` are not used.
    """

    source: str | None
    checkpoint: str
    count: int
    data: DataOptions = field(default_factory=DataOptions)
    seed: int = 0
    dims: str | None = None
    label: str | None = None
    factor: int | None = None
    suffixes: tuple[str, ...] = (".png",)
    run: Run | None = None

    def load_model(self) -> LoadedModel:
        """Loads the run or export."""
        return from_run(self.run) if self.run else load_model(self.source, self.checkpoint)

    def open_run(self, *, images: bool = True) -> Run:
        """Loads the run.

        Args:
            images: Whether it must have been trained on images.

        Raises:
            VaezooError: If the source is an export, or the run was trained on vectors but `images` is set.
        """
        self.refuse_export()
        run = self.run or open_run(self.source, self.checkpoint)
        if images:
            require_images(from_run(run))
        return run

    def refuse_export(self) -> None:
        """Raises VaezooError if the source is an export."""
        from vaezoo.runtime.manifest import is_export

        if self.source is not None and is_export(self.source):
            raise VaezooError(
                f"{self.source} is an export, but this plot needs a run", "give the run folder that was exported"
            )

    def load_data(self, run: Run) -> Examples:
        """Loads the examples; see `DataOptions.load`."""
        return self.data.load(run)


class PlotResult(NamedTuple):
    """A drawn plot.

    Attributes:
        folder: The model's folder.
        files: Suffix -> content of the file.
    """

    folder: Path
    files: dict[str, bytes]

    def write(self, name: str, out: str | None) -> None:
        """Writes the files and prints their paths. For the arguments see `save`."""
        for path in self.save(name, out):
            click.echo(path)

    def save(self, name: str, out: str | None) -> list[Path]:
        """Writes the files and returns their paths.

        Args:
            name: File name without suffix, for the default output folder.
            out: Path of the file, or None for the default.
        """
        from vaezoo.core.atomic import write_file

        if out is not None and Path(out).suffix.lower() not in self.files:
            raise VaezooError(f"cannot write '{out}'", f"give a name that ends in {' or '.join(self.files)}")
        paths = {s: Path(out) if out else default_output_dir(self.folder) / f"{name}{s}" for s in self.files}
        for suffix, path in paths.items():
            write_file(path, self.files[suffix])
        return list(paths.values())
