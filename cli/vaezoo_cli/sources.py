"""What images can be drawn with: a run in PyTorch, or an export in ONNX Runtime."""

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
    """A model that draws, wherever it runs.

    Attributes:
        folder: Where it lies.
        shape: Of one image.
        sample: Number and seed -> images from the prior.
        reconstruct: Images `(N, C, H, W)` in [0, 1] -> their reconstructions.
        encode: Examples `(N, *shape)` in [0, 1] -> the fields of q(z|x), each of N.
        load_data: Folder of data sets -> the set that the model was trained on.
    """

    folder: Path
    shape: tuple[int, ...]
    sample: Callable[[int, int], Images]
    reconstruct: Callable[[NDArray[Any]], Images]
    encode: Callable[[NDArray[Any]], dict[str, NDArray[Any]]]
    load_data: Callable[[str | None], Dataset]


def open_source(source: str | None, checkpoint: str, *, images: bool = True) -> LoadedModel:
    """Opens the run or export that a user means.

    Raises:
        UnsupportedDataError: If it was not trained on images, where they are needed.
    """
    exported = open_export(source, checkpoint)
    opened = of_export(Path(source or ""), exported) if exported else of_run(open_run(source, checkpoint))
    if images:
        require_images(opened.folder, opened.shape)
    return opened


def require_images(folder: Path, shape: tuple[int, ...]) -> None:
    """Raises UnsupportedDataError if what a model was trained on is nothing that can be drawn."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UnsupportedDataError(f"{folder} was trained on shape {shape}, which is no image", "take another run")


def of_run(run: Run) -> LoadedModel:
    """Draws with a run's model."""
    import torch

    def sample(count: int, seed: int) -> Images:
        torch.manual_seed(seed)
        with torch.no_grad():
            return as_bytes(run.vae.sample(count).numpy())

    def reconstruct(x: NDArray[Any]) -> Images:
        with torch.no_grad():
            return as_bytes(run.vae.reconstruct(torch.from_numpy(x)).numpy())

    def encode(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        with torch.no_grad():
            fields = run.vae.encode(torch.from_numpy(x))._asdict()  # type: ignore[attr-defined]  # a NamedTuple
        return {name: field.numpy() for name, field in fields.items()}

    return LoadedModel(run.path, run.data.shape, sample, reconstruct, encode, run.load_data)


def of_export(folder: Path, model: OnnxVAE) -> LoadedModel:
    """Draws with an export's graphs."""
    shape = tuple(model.manifest["data"]["shape"])

    def taken(x: NDArray[Any]) -> NDArray[Any]:
        return as_bytes(x) if model.manifest["format"]["uint8"] else x

    return LoadedModel(
        folder,
        shape,
        lambda count, seed: as_bytes(model.sample(count, seed)),
        lambda x: as_bytes(model.reconstruct(taken(x))),
        lambda x: model.encode(taken(x)),
        lambda data_dir: data_of_export(folder, model, data_dir),
    )


def data_of_export(folder: Path, model: OnnxVAE, data_dir: str | None) -> Dataset:
    """Loads the data set that an exported model was trained on.

    Raises:
        VaezooError: If it has no name by which to find it.
    """
    import vaezoo
    from vaezoo.data.catalog import DATASETS

    name, shape = model.manifest["data"]["name"], tuple(model.manifest["data"]["shape"])
    if name not in DATASETS:
        raise VaezooError(f"{folder} was trained on '{name}', which is no data set by name", "give --data")
    dataset = vaezoo.load_data(name, data_dir=data_dir)
    resized = dataset.spec.shape != shape
    return vaezoo.load_data(name, data_dir=data_dir, image_size=shape[-1]) if resized else dataset
