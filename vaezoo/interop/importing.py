"""`import_folder` makes a run of a folder of diffusers, or of TAESD's files. Nothing of the folder is run."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from vaezoo.core.json_io import read_json, write_json
from vaezoo.core.options import config_json
from vaezoo.data.base import ImageSize
from vaezoo.data.load import checked_image_size, slug
from vaezoo.data.spec import DataSpec
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError, VaezooWarning
from vaezoo.interop import taesd
from vaezoo.interop.base import CONFIG
from vaezoo.interop.formats import find_format
from vaezoo.interop.weights import read_shapes, read_weights
from vaezoo.registry import find_model
from vaezoo.training.checkpoint import save_checkpoint
from vaezoo.training.config import TrainConfig
from vaezoo.training.run import Run, load
from vaezoo.training.run_dir import create_run_dir, remove_unsaved_run
from vaezoo.training.run_files import SCHEMA
from vaezoo.training.run_writer import CHECKPOINTS
from vaezoo.training.train import versions
from vaezoo.training.warm_start import misfits, shapes

IMAGE_SIZE = 64  # of the run by default; its samples have this size, and exports are compared with the model at it
LIKELIHOOD = "gaussian-identity"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt")
OWN = ("likelihood.", "prior.")  # how the names of weights begin that no folder has

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a folder holds.

    Attributes:
        kind: The class of diffusers, or "TAESD".
        model: Name of the model.
        options: Options of the model.
        channels: Channels of the images.
        config: The contents of config.json. Empty if there is none.
        files: The files of weights -> a function from names in the file to names in the model.
    """

    kind: str
    model: str
    options: Mapping[str, object]
    channels: int
    config: Mapping[str, object]
    files: Mapping[Path, Callable[[str], str]]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of all weights by their names in the model; raises as `read_shapes` does."""
        return self._merged({file: read_shapes(file) for file in self.files})

    def weights(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Returns all weights by their names in the model, and the hash of each file; raises as `read_weights` does."""
        found = {file: read_weights(file) for file in self.files}
        tensors = self._merged({file: weights.tensors for file, weights in found.items()})
        return tensors, {file.name: weights.sha256 for file, weights in found.items()}

    def _merged(self, found: Mapping[Path, Mapping[str, ValueT]]) -> dict[str, ValueT]:
        pairs = [(self.files[file](name), value) for file, values in found.items() for name, value in values.items()]
        if len(merged := dict(pairs)) < len(pairs):
            raise InputError(f"{next(iter(found))} holds a weight under two names", "save the weights again")
        return merged


def import_folder(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    image_size: ImageSize | None = None,
    likelihood: str = LIKELIHOOD,
) -> Run:
    """Makes a run of a folder of an autoencoder of diffusers, or of TAESD's two files.

    docs/import.md lists the classes. The weights become float32. No program of the folder is run, and diffusers is not
    needed. The run takes and gives images in [0, 1].

    Args:
        folder: It holds config.json and diffusion_pytorch_model.safetensors (or its fp16 variant), or the files of an
            encoder and a decoder.
        out: The run folder; by default the next free `runs/MODEL-FOLDER-N`.
        image_size: Height and width of the images of samples, of evaluations, and of the comparison of an export. The
            default is 64. Encoder and decoder take others, too.
        likelihood: p(x|z), for evaluations and for trainings that start from the run. Its parameters must be images.

    Raises:
        InputError: If the folder holds no such model, the model is not supported, asks for code of its own, or is
            damaged, or the weights do not fit. The message names them.
        VaezooError: If the likelihood or the size does not fit.
        StorageError: If `out` exists or cannot be written. Nothing is left then.
    """
    folder = Path(folder)
    source, size = find_source(folder), checked_image_size(image_size) or IMAGE_SIZE
    shape = (source.channels, size, size) if isinstance(size, int) else (source.channels, *size)
    data = DataSpec(name=slug(folder.resolve()), shape=shape, likelihood=likelihood)
    if not data.make_likelihood().identity:
        what = f"the decoder puts out images, and likelihood '{likelihood}' takes logits"
        raise VaezooError(what, "use gaussian-identity or laplace-identity")
    registration = find_model(source.model)
    with errors_of(folder), torch.device("meta"):  # shapes without memory: a config may ask for terabytes
        needed = shapes(registration.build(source.options, data)[1].state_dict())
    needed = {name: shape for name, shape in needed.items() if not name.startswith(OWN)}
    if problem := misfits(str(folder), source.shapes(), source.kind, needed):
        raise InputError(problem, "give the config and the weights of one model")
    weights, hashes = source.weights()
    with torch.random.fork_rng([]):
        config, vae, objective = registration.build(source.options, data)
    vae.load_state_dict(weights, strict=False)  # the names are those of `needed`
    record = {
        "schema": SCHEMA,
        "model": registration.full_name,
        "options": config_json(config),
        "data": asdict(data),
        "source": None,
        "fingerprint": "",
        "training": asdict(TrainConfig()),
        "monitor": objective.monitor,
        "init_from": None,
        "world_size": 1,
        "device": "cpu",
        "versions": versions(registration),
        "imported": {"class": source.kind, "files": hashes, "config": dict(source.config)},
    }
    tensors = {"model": vae.state_dict(), "objective": objective.state_dict()}
    return write_run(create_run_dir(out, f"{registration.name}-{data.name}"), record, tensors)


def write_run(path: Path, record: Mapping[str, object], tensors: Mapping[str, Mapping[str, Tensor]]) -> Run:
    """Writes a run that was not trained into an empty folder, and loads it. If that fails, the folder is removed.

    Args:
        path: The folder.
        record: The contents of run.json.
        tensors: Those of the model and of the objective.
    """
    try:
        save_checkpoint(path / CHECKPOINTS, tensors, 0, {}, {"log_bytes": 0})
        write_json(path / "run.json", record)  # last: without it the folder is no run
    except BaseException:
        shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
        remove_unsaved_run(path)
        raise
    return load(path)


def find_source(folder: Path) -> Source:
    """Returns what a folder holds.

    Raises:
        InputError: If it holds no model that can be imported.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "give the folder of an autoencoder")
    if (folder / CONFIG).exists():
        return find_diffusers(folder)
    if files := taesd.find_files(folder):
        return find_taesd(files)
    if missing := taesd.lone_file(folder):
        raise InputError(f"{folder} holds half of an autoencoder: it has no {missing}", "give both files")
    hint = f"give a folder with {CONFIG} and {WEIGHTS[0]}, or with TAESD's encoder and decoder"
    if (folder / "vae" / CONFIG).exists():
        hint = f"give the folder of its autoencoder, {folder / 'vae'}"
    raise InputError(f"{folder} is not the folder of an autoencoder: it has no {CONFIG}", hint)


def find_taesd(files: Mapping[str, Path]) -> Source:
    """Returns what TAESD's files hold. Raises InputError if they cannot be imported."""
    names = {file: partial(taesd.rename, part) for part, file in files.items()}
    file = files["encoder"]
    encoder = {names[file](name): shape for name, shape in read_shapes(file).items()}
    options, channels = taesd.read_options(encoder)
    return Source(kind="TAESD", model=taesd.MODEL, options=options, channels=channels, config={}, files=names)


def find_diffusers(folder: Path) -> Source:
    """Returns what a folder of diffusers holds. Raises InputError if it cannot be imported."""
    settings = read_json(folder / CONFIG)
    found = find_format(settings)
    options, channels = found.read(settings), found.channels(settings)
    file = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if file is None:
        hint = "download it"
        if any(next(folder.glob(pattern), None) for pattern in PICKLES):
            hint = "vaezoo reads no pickled weights: save them with diffusers as safetensors"
        if (folder / f"{WEIGHTS[0]}.index.json").exists():
            hint = "save the weights with diffusers in one file"
        raise InputError(f"{folder} has no {WEIGHTS[0]}", hint)
    if scaled := [name for name in ("latents_mean", "latents_std") if settings.get(name) is not None]:
        what = f"{folder / CONFIG} scales latents by {scaled[0]}, which scaling_factor and shift_factor do not contain"
        warnings.warn(what, VaezooWarning, stacklevel=4)
    names = {file: found.rename}
    return Source(kind=found.name, model=found.model, options=options, channels=channels, config=settings, files=names)


@contextlib.contextmanager
def errors_of(folder: Path) -> Iterator[None]:
    """Turns a model's error about its options into an InputError, because the folder holds the options."""
    try:
        yield
    except UnsupportedDataError as e:
        raise VaezooError(e.message, "give another --image-size") from e
    except VaezooError as e:
        raise InputError(f"{folder} holds no model that fits: {e.message}", "correct its files") from e
