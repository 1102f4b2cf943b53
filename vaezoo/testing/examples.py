"""The data, models and batches that the checks use: the first small data that a model accepts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator

from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.objectives.base import LossOutput, Objective, StepContext
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE, check_inputs, conditioned_on, example_batch

Spec = ModelSpec[Any]
Check = Callable[[Spec], None]

SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 64, 64), (3, 64, 64), (12,))
BATCH_SIZE = 6
TRAIN_SIZE = 60  # that objectives are told
CLASSES = (4,)

UNIT_DATA = tuple(DataSpec(name="example", shape=shape) for shape in SHAPES)
OTHER_DATA = (
    DataSpec(name="a series", shape=(2, 16), kind="real", likelihood="gaussian"),
    DataSpec(name="real vectors", shape=(12,), kind="real", likelihood="gaussian"),
    DataSpec(name="a table", shape=(3,), kind="table", likelihood="table", columns=("a:real", "b:3", "c:2")),
    DataSpec(name="counts", shape=(12,), kind="count", likelihood="zinb"),
    DataSpec(
        name="texts", shape=(8,), kind="tokens", likelihood="categorical", vocabulary=7, symbols=("", "\n", *"abcde")
    ),
)


def with_classes(data: DataSpec) -> DataSpec:
    """Returns the same data with one label of four values."""
    return dataclasses.replace(data, classes=CLASSES)


UNLABELLED = (*UNIT_DATA, *OTHER_DATA)
EXAMPLES = (*UNLABELLED, *map(with_classes, UNLABELLED))


def example_data(spec: Spec) -> DataSpec:
    """Returns the first of EXAMPLES that the model accepts. It has labels only if the model is given them.

    Raises:
        AssertionError: If it accepts none of them.
    """
    for data in EXAMPLES:
        try:
            with torch.device("meta"):
                vae = spec.build(spec.config, data)
            if "y" in conditioned_on(vae) and not data.classes:
                continue
        except UnsupportedDataError:
            continue
        except Exception:  # other checks report what is wrong with these data
            return data
        return data
    others = ", ".join(data.name for data in OTHER_DATA)
    raise AssertionError(
        f"the model accepts none of the shapes {SHAPES} and none of {others}, with or without labels. "
        "Support at least one of them."
    )


def build_example(spec: Spec, seed: int = 0) -> tuple[VAE, Objective, Batch]:
    """Builds model and objective, with a batch of the data that `example_data` returns.

    `vae.data` describes the data. Images are noise around a random grey level, so that there is something to learn.
    """
    data = example_data(spec)
    torch.manual_seed(seed)
    vae, objective = spec.build(spec.config, data), spec.objective(spec.config, data)
    if isinstance(vae, VAE):
        check_inputs(vae)
    batch = example_batch(data, BATCH_SIZE, Generator().manual_seed(seed))
    if data.kind == "unit":
        grey = torch.rand(BATCH_SIZE, *[1] * len(data.shape))
        batch = batch._replace(x=torch.rand(BATCH_SIZE, *data.shape).lerp(grey, 0.8))
    return vae, objective, batch


def compute_losses(vae: VAE, objective: Objective, batch: Batch, seed: int = 0, step: int = 0) -> LossOutput:
    """Returns losses and metrics of step number `step`. All random numbers come from `seed`."""
    torch.manual_seed(seed)
    context = StepContext.initial(train_size=TRAIN_SIZE)._replace(global_step=torch.tensor(float(step)))
    output: LossOutput = objective(vae, batch, context)
    return output


def with_likelihood(spec: Spec, text: str) -> Spec:
    """Returns the same model, built for data with another likelihood.

    Data that the likelihood is not for are refused, as if the model did not support them.

    Raises:
        VaezooError: If there is no such likelihood, or it fits no kind of data.
    """
    errors = []
    for data in UNLABELLED:
        try:
            dataclasses.replace(data, likelihood=text)
        except VaezooError as e:
            errors.append(e)
    if len(errors) == len(UNLABELLED):
        raise errors[0]

    def change(data: DataSpec) -> DataSpec:
        try:
            return dataclasses.replace(data, likelihood=text)
        except VaezooError as e:
            raise UnsupportedDataError(e.message, e.hint) from e

    return dataclasses.replace(
        spec,
        build=lambda config, data: spec.build(config, change(data)),
        objective=lambda config, data: spec.objective(config, change(data)),
    )
