"""What has to hold before a training begins: that model, data, settings and device fit together."""

from __future__ import annotations

import torch

from vaezoo import ranks
from vaezoo.data.base import Dataset
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.objectives import Objective
from vaezoo.training.config import TrainConfig
from vaezoo.vae import VAE


def check_fit(vae: VAE, objective: Objective, data: Dataset, config: TrainConfig) -> None:
    """Raises unless model, data and batch size fit together; see Trainer."""
    if config.early_stopping is not None and objective.monitor is None:
        raise VaezooError(
            "no metric of this model tells when it is at its best", "leave out --early-stopping, and set --epochs"
        )
    if vae.data.shape != data.spec.shape:
        raise UnsupportedDataError(
            f"the model is made for shape {vae.data.shape}, data set '{data.spec.name}' has {data.spec.shape}",
            "build the model from the data set's spec",
        )
    if config.batch_size > len(data.train):
        raise VaezooError(
            f"batch size {config.batch_size} is larger than the {len(data.train)} training examples of "
            f"'{data.spec.name}'",
            f"give --batch-size at most {len(data.train)}",
        )
    parts = ranks.size() * config.grad_accum
    if config.batch_size % parts:
        raise VaezooError(
            f"batch size {config.batch_size} cannot be divided into {parts} equal parts "
            f"(processes: {ranks.size()}, parts for each: {config.grad_accum})",
            f"give --batch-size a multiple of {parts}",
        )


def check_device(device: torch.device, config: TrainConfig) -> None:
    """Raises if the device cannot do what is asked for."""
    if config.precision == "tf32" and device.type != "cuda":
        raise VaezooError(f"precision tf32 is CUDA's, and the device is {device}", "use fp32 or bf16")


def pick_device(name: str) -> torch.device:
    """Returns the device of that name, for "auto" the best there is.

    Raises:
        VaezooError: If there is no such device here.
    """
    there = [d for d, ok in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if ok]
    there.append("cpu")
    if name == "auto":
        name = there[0]
    if name == "cuda" and ranks.launched():
        name = f"cuda:{ranks.local_number()}"  # one GPU for each rank
    try:
        device = torch.device(name)
        if device.type in there and (device.index or 0) < max(1, torch.cuda.device_count()):
            return device
    except RuntimeError:
        pass
    raise VaezooError(f"there is no device '{name}' here", f"use auto, {', '.join(there)}")
