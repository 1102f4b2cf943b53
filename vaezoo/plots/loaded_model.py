"""A model that draws images or writes data: a run in PyTorch, or an export in ONNX Runtime, which needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vaezoo.core.image_grids import as_bytes
from vaezoo.errors import UnsupportedDataError, VaezooError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo import Run
    from vaezoo.core.coordinates import Resolution
    from vaezoo.core.drawing import Drawing
    from vaezoo.examples import Model
    from vaezoo.runtime import OnnxVAE
    from vaezoo.runtime.manifest import DataEntry

    Values = NDArray[Any]


@dataclass(frozen=True)
class LoadedModel:
    """A trained model. An export samples and decodes without torch.

    Attributes:
        folder: The run folder or export folder.
        model: The run or export.
        data: The data that the model was made for.
    """

    folder: Path
    model: Model
    data: DataEntry

    @property
    def export(self) -> OnnxVAE | None:
        """The export, or None if the model is a run."""
        from vaezoo.runtime import OnnxVAE

        return self.model if isinstance(self.model, OnnxVAE) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.data["shape"])

    @property
    def is_image(self) -> bool:
        """Whether an example is a grey or colour image."""
        return self.data["kind"] == "unit" and len(self.shape) == 3 and self.shape[0] in (1, 3)

    @property
    def is_spectrogram(self) -> bool:
        """Whether an example is the spectrogram of a sound."""
        return bool(self.data.get("sample_rate")) and len(self.shape) == 3

    @property
    def is_series(self) -> bool:
        """Whether an example is a series `(channels, time)`."""
        return self.data["kind"] != "tokens" and len(self.shape) == 2

    @property
    def takes_labels(self) -> bool:
        """Whether samples can be those of a label."""
        if self.export is not None:
            return self.export.takes_labels("decoder", "prior")
        from vaezoo.examples import takes_labels

        return takes_labels(self.model, "decoder", "prior")

    def pixels(self, x: Values) -> Values:
        """Returns images as bytes `(N, H, W, C)`. Values that minmax has scaled are shown as in the training.

        Args:
            x: In the units of the data, `(N, *shape)`.
        """
        from vaezoo.data.sound.spectrogram import grey_levels
        from vaezoo.runtime.manifest import scaling_of

        if self.is_spectrogram:
            return grey_levels(x, self.data["sample_rate"])
        scaling = scaling_of(self.data)
        return as_bytes(scaling.apply(x) if scaling.offset else x)

    def thumbnails(self, x: Values) -> Values:
        """Returns small images of examples in the units of the model, bytes `(N, H, W, C)`."""
        from vaezoo.plots.thumbnails import thumbnails
        from vaezoo.runtime.manifest import scaling_of

        return self.pixels(scaling_of(self.data).invert(x)) if self.is_spectrogram else thumbnails(x)

    def sample(
        self,
        count: int,
        seed: int,
        y: Values | None = None,
        *,
        draw: bool = False,
        resolution: Resolution | None = None,
        drawing: Drawing | None = None,
    ) -> Iterator[Values]:
        """Yields the data of latents drawn from the prior, in chunks."""
        if self.export is not None:
            from vaezoo.runtime.generate import iter_samples

            return iter_samples(self.export, count, seed=seed, y=y, draw=draw, resolution=resolution, drawing=drawing)
        from vaezoo.evaluation.outputs import iter_samples as iter_run

        return iter_run(self.model, count, seed=seed, y=y, draw=draw, resolution=resolution, drawing=drawing)

    def prior_latents(self, count: int, seed: int, y: Values | None = None) -> Values:
        """Returns latents drawn from the prior, `(count, *latent_shape)`."""
        import numpy as np

        if self.export is not None:
            labels = self.export.labels_in_turn(count) if y is None else y
            return self.export.sample_prior(count, labels, np.random.default_rng(seed))
        from vaezoo.evaluation.outputs import sample_latents

        return sample_latents(cast("Run", self.model), count, seed=seed, y=y)

    def decode(
        self,
        z: Values,
        seed: int,
        y: Values | None = None,
        *,
        draw: bool = False,
        resolution: Resolution | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        drawing: Drawing | None = None,
    ) -> Iterator[Values]:
        """Yields the data of latents, in chunks. Only exports take tiles; see `vaezoo.runtime.OnnxVAE`.

        Raises:
            VaezooError: If tiles are asked of a run.
        """
        if self.export is not None:
            from vaezoo.runtime.generate import iter_decoded
            from vaezoo.runtime.tiling import OVERLAP

            return iter_decoded(
                self.export,
                z,
                seed=seed,
                y=y,
                draw=draw,
                resolution=resolution,
                tile=tile,
                overlap=OVERLAP if overlap is None else overlap,
                drawing=drawing,
            )
        from vaezoo.evaluation.outputs import iter_decoded as iter_run

        if tile is not None:
            raise VaezooError(f"{self.folder} is a run, and only an export runs in tiles", "export it: vaezoo export")
        return iter_run(self.model, z, seed=seed, y=y, draw=draw, resolution=resolution, drawing=drawing)

    @property
    def mode(self) -> str:
        """Which of the fields of q(z|x) is its mode."""
        if self.export is not None:
            return self.export.manifest["mode"]
        from vaezoo.evaluation.outputs import mode_name

        return mode_name(self.model)


def from_run(run: Run) -> LoadedModel:
    """Returns the model of a run."""
    return LoadedModel(run.path, run, cast("DataEntry", asdict(run.data)))


def require_drawable(model: LoadedModel) -> None:
    """Raises UnsupportedDataError unless a model was trained on images, series or sound, which can be drawn."""
    if not (model.is_image or model.is_series or model.is_spectrogram):
        raise UnsupportedDataError(
            f"{model.folder} was trained on shape {model.shape}, which is not an image, a series or sound",
            "give a run that was trained on images, series or sound",
        )
