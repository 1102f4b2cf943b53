"""Checks before a training that model, data, settings and device fit together."""

from __future__ import annotations

import torch

from vaezoo.core import distributed
from vaezoo.data.base import LABELS_HINT, Dataset, Split
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.objectives.base import Objective
from vaezoo.training.config import TrainConfig
from vaezoo.vae import VAE, check_fits, check_labels, conditioned_on


def validate_setup(vae: VAE, objective: Objective, data: Dataset, config: TrainConfig) -> None:
    """Raises unless model, data and batch size fit together; see Trainer."""
    if config.early_stopping is not None and objective.monitor is None:
        raise VaezooError(
            "early stopping is not possible: this model has no metric that tells its best checkpoint",
            "leave out --early-stopping and set --epochs",
        )
    if config.samples_every is not None and not is_image(data.spec):
        raise VaezooError(
            f"samples_every draws images, but '{data.spec.name}' has shape {data.spec.shape} and kind {data.spec.kind}",
            "leave out --samples-every; 'vaezoo sample' writes samples of such data",
        )
    if vae.data.shape != data.spec.shape:
        raise UnsupportedDataError(
            f"the model is built for shape {vae.data.shape}, but data set '{data.spec.name}' has {data.spec.shape}",
            "build the model from the data set's spec",
        )
    check_fits(vae, data.spec)
    if objective.needs_labels or "y" in conditioned_on(vae):
        for name, split in (("training", data.train), ("validation", data.valid), ("held-out", data.held_out[1])):
            check_split_labels(data.spec, name, split)
    if config.binarize != "none" and (data.spec.kind != "unit" or data.spec.offset):
        # Values that minmax has scaled may lie outside [0, 1] in the held-out parts.
        what = "that minmax has scaled" if data.spec.offset else f"of kind {data.spec.kind}"
        raise VaezooError(f"data {what} cannot be binarized", "leave out --binarize")
    check_augmentations(data.spec, config)
    if config.batch_size > len(data.train):
        raise VaezooError(
            f"batch size {config.batch_size} is larger than the {len(data.train)} training examples of "
            f"'{data.spec.name}'",
            f"give --batch-size at most {len(data.train)}",
        )
    parts = distributed.world_size() * config.grad_accum_steps
    if config.batch_size % parts:
        raise VaezooError(
            f"batch size {config.batch_size} cannot be divided into {parts} equal parts "
            f"(processes: {distributed.world_size()}, gradient accumulation steps: {config.grad_accum_steps})",
            f"give --batch-size a multiple of {parts}",
        )
    objective.prepare()
    sampler = objective.sampler(data.train, config.seed)
    if sampler is not None and config.batch_size % (parts * sampler.multiple):
        raise VaezooError(
            f"batch size {config.batch_size} cannot be divided into {parts} parts of groups of {sampler.multiple} "
            "examples, which the objective needs",
            f"give --batch-size a multiple of {parts * sampler.multiple}",
        )


def is_image(data: DataSpec) -> bool:
    """Returns whether an example is a grey or colour image."""
    return data.kind == "unit" and len(data.shape) == 3 and data.shape[0] in (1, 3)


def check_augmentations(data: DataSpec, config: TrainConfig) -> None:
    """Raises unless the data are images that are larger than the shifts and crops of the settings."""
    if not config.augment:
        return
    if len(data.shape) != 3 or data.kind not in ("unit", "real"):
        raise UnsupportedDataError(
            f"'{data.name}' of kind {data.kind} and shape {data.shape} has no images to augment", "leave out --augment"
        )
    pixels = max(pixels for _, pixels in config.augmentations())
    if pixels >= min(data.shape[1:]):
        raise VaezooError(
            f"--augment moves images by {pixels} pixels, and they are {data.shape[1]}x{data.shape[2]}",
            f"give at most {min(data.shape[1:]) - 1}",
        )


def check_split_labels(data: DataSpec, name: str, split: Split) -> None:
    """Raises unless a split has the labels that the data set's spec states."""
    if split.y is None:
        raise UnsupportedDataError(
            f"the {name} examples of '{data.name}' have no labels, but the model needs them",
            LABELS_HINT,
        )
    check_labels(data, split.y)


def check_device(device: torch.device, config: TrainConfig) -> None:
    """Raises VaezooError if the device does not support the settings."""
    if config.precision == "tf32" and device.type != "cuda":
        raise VaezooError(f"precision tf32 needs CUDA, and the device is {device}", "use fp32 or bf16")
