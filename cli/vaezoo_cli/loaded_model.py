"""A model for the commands that draw images or encode data: a run in PyTorch, or an export in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo_cli.options import open_export, open_run
from vaezoo_cli.render.image_grids import as_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo import Dataset, Run
    from vaezoo.runtime import OnnxVAE
    from vaezoo_cli.render.image_grids import Images


@dataclass(frozen=True)
class LoadedModel:
    """A trained model. `sample` and `reconstruct` run in batches, so that memory stays bounded.

    Attributes:
        folder: The run folder or export folder.
        shape: Shape of one example.
        sample: Number and seed -> images of latents drawn from the prior.
        reconstruct: Images `(N, C, H, W)` in [0, 1] -> their reconstructions.
        encode: One batch of examples `(B, *shape)` in [0, 1] -> the fields of q(z|x), `(B, *latent_shape)` each.
        load_data: Folder of data sets -> the data set that the model was trained on.
    """

    folder: Path
    shape: tuple[int, ...]
    sample: Callable[[int, int], Images]
    reconstruct: Callable[[NDArray[Any]], Images]
    encode: Callable[[NDArray[Any]], dict[str, NDArray[Any]]]
    load_data: Callable[[str | None], Dataset]


def load_model(source: str | None, checkpoint: str, *, images: bool = True) -> LoadedModel:
    """Loads the run or export that a user names.

    Args:
        source: A run folder, model, pretrained model or export folder, or None for the newest run.
        checkpoint: "best", "last" or a step.
        images: Whether the model must have been trained on images.

    Raises:
        UnsupportedDataError: If it was trained on vectors, but `images` is set.
    """
    export = open_export(source, checkpoint)
    model = from_export(Path(source or ""), export) if export else from_run(open_run(source, checkpoint))
    if images:
        require_images(model.folder, model.shape)
    return model


def require_images(folder: Path, shape: tuple[int, ...]) -> None:
    """Raises UnsupportedDataError unless a shape is that of a grey or colour image."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UnsupportedDataError(
            f"{folder} was trained on shape {shape}, which is not an image", "give a run that was trained on images"
        )


def from_run(run: Run) -> LoadedModel:
    """Returns the model of a run."""
    import torch

    from vaezoo.evaluation import latents

    def sample(count: int, seed: int) -> Images:
        torch.manual_seed(seed)
        return as_bytes(latents.decode(run.vae, run.vae.prior.sample(count)).numpy())

    def reconstruct(x: NDArray[Any]) -> Images:
        return as_bytes(latents.decode(run.vae, latents.encode(run.vae, torch.from_numpy(x))).numpy())

    def encode(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        with torch.no_grad():
            posterior = run.vae.encode(torch.from_numpy(x))
        return {name: field.numpy() for name, field in posterior._asdict().items()}  # type: ignore[attr-defined]

    return LoadedModel(run.path, run.data.shape, sample, reconstruct, encode, run.load_data)


def from_export(folder: Path, export: OnnxVAE) -> LoadedModel:
    """Returns the model of an export."""
    shape = tuple(export.manifest["data"]["shape"])

    def as_input(x: NDArray[Any]) -> NDArray[Any]:
        return as_bytes(x) if export.manifest["format"]["uint8"] else x

    return LoadedModel(
        folder,
        shape,
        lambda count, seed: as_bytes(export.sample(count, seed)),
        lambda x: as_bytes(export.reconstruct(as_input(x))),
        lambda x: export.encode(as_input(x)),
        lambda data_dir: load_export_data(folder, export, data_dir),
    )


def load_export_data(folder: Path, export: OnnxVAE, data_dir: str | None) -> Dataset:
    """Loads the data set that an exported model was trained on.

    Raises:
        VaezooError: If that is not one of the named data sets. An export does not store paths.
    """
    import vaezoo
    from vaezoo.data.catalog import DATASETS

    name, shape = export.manifest["data"]["name"], tuple(export.manifest["data"]["shape"])
    if name not in DATASETS:
        raise VaezooError(f"{folder} was trained on '{name}', which is not a named data set", "give --data")
    dataset = vaezoo.load_data(name, data_dir=data_dir)
    resized = dataset.spec.shape != shape
    return vaezoo.load_data(name, data_dir=data_dir, image_size=shape[-1]) if resized else dataset
