"""A model for the commands that draw images or encode data: a run in PyTorch, or an export in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo_cli.options import open_export, open_run
from vaezoo_cli.render.image_grids import as_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo import Dataset, Run
    from vaezoo.runtime import OnnxVAE
    from vaezoo.runtime.manifest import DataEntry


@dataclass(frozen=True)
class LoadedModel:
    """A trained model. `sample` and `reconstruct` run in batches, so that memory stays bounded.

    Attributes:
        folder: The run folder or export folder.
        data: The data that the model was made for.
        sample: Number, seed and labels or None -> data of latents drawn from the prior.
        reconstruct: Examples `(N, *shape)` and their labels or None -> their reconstructions.
        encode: One batch of examples `(B, *shape)` and their labels or None -> the outputs of the encoder.
        load_data: Folder of data sets -> the data set that the model was trained on.
        takes_labels: Whether samples can be those of a label.
    """

    folder: Path
    data: DataEntry
    sample: Callable[[int, int, NDArray[Any] | None], NDArray[Any]]
    reconstruct: Callable[[NDArray[Any], NDArray[Any] | None], NDArray[Any]]
    encode: Callable[[NDArray[Any], NDArray[Any] | None], dict[str, NDArray[Any]]]
    load_data: Callable[[str | None], Dataset]
    takes_labels: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.data["shape"])

    @property
    def is_image(self) -> bool:
        """Whether an example is a grey or colour image."""
        return self.data["kind"] == "unit" and len(self.shape) == 3 and self.shape[0] in (1, 3)


def load_model(source: str | None, checkpoint: str, *, images: bool = False) -> LoadedModel:
    """Loads the run or export that a user names.

    Args:
        source: A run folder, model, pretrained model or export folder, or None for the newest run.
        checkpoint: "best", "last" or a step.
        images: Whether the model must have been trained on images.

    Raises:
        UnsupportedDataError: If it was trained on other data, but `images` is set.
    """
    export = open_export(source, checkpoint)
    model = from_export(Path(source or ""), export) if export else from_run(open_run(source, checkpoint))
    if images:
        require_images(model)
    return model


def require_images(model: LoadedModel) -> None:
    """Raises UnsupportedDataError unless a model was trained on grey or colour images."""
    if not model.is_image:
        raise UnsupportedDataError(
            f"{model.folder} was trained on shape {model.shape}, which is not an image",
            "give a run that was trained on images",
        )


def from_run(run: Run) -> LoadedModel:
    """Returns the model of a run."""
    import torch

    from vaezoo.data.base import Batch
    from vaezoo.evaluation import latents
    from vaezoo.posteriors.base import named_outputs
    from vaezoo.vae import blank_batch, sample_prior

    def to_batch(x: NDArray[Any], y: NDArray[Any] | None) -> Batch:
        return Batch(torch.from_numpy(x), None if y is None else torch.from_numpy(y))

    def sample(count: int, seed: int, y: NDArray[Any] | None) -> NDArray[Any]:
        torch.manual_seed(seed)
        batch = blank_batch(run.vae, count, None if y is None else torch.from_numpy(y))
        with torch.no_grad():
            z = sample_prior(run.vae, batch)
        return latents.decode(run.vae, z, batch.y, greedy=False).numpy()

    def reconstruct(x: NDArray[Any], y: NDArray[Any] | None) -> NDArray[Any]:
        batch = to_batch(x, y)
        return latents.decode(run.vae, latents.encode(run.vae, batch), batch.y).numpy()

    def encode(x: NDArray[Any], y: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        with torch.no_grad():
            outputs, _ = named_outputs(run.vae.infer(to_batch(x, y)))
        return {name: values.numpy() for name, values in outputs.items()}

    data, takes_labels = cast("DataEntry", asdict(run.data)), "y" in (*run.vae.decoder_inputs, *run.vae.prior.inputs)
    return LoadedModel(run.path, data, sample, reconstruct, encode, run.load_data, takes_labels)


def from_export(folder: Path, export: OnnxVAE) -> LoadedModel:
    """Returns the model of an export."""

    def as_input(x: NDArray[Any]) -> NDArray[Any]:
        return as_bytes(x) if export.manifest["format"]["uint8"] else x

    graphs = export.manifest["graphs"]
    return LoadedModel(
        folder,
        export.data,
        lambda count, seed, y: export.sample(count, seed, y=y),
        lambda x, y: export.reconstruct(as_input(x), y),
        lambda x, y: export.encode(as_input(x), y),
        lambda data_dir: load_export_data(folder, export, data_dir),
        any("y" in [i["name"] for i in graphs[name]["inputs"]] for name in ("decoder", "prior") if name in graphs),
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
