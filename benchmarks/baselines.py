"""The backends of train_throughput.py: vaezoo and its baselines.

Each backend trains until its process is ended, and reports its steps to `WorkerChannel.record_window`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

import vaezoo
from reference_model import (
    LR,
    MODELS,
    Job,
    PlainVAE,
    count_parameters,
    load_bytes,
    load_dataset,
    negative_elbo,
    tutorial_loss,
)
from train_workers import WorkerChannel
from vaezoo.registry import find_model
from vaezoo.training.trainer import REPORT_EVERY

WINDOW = REPORT_EVERY  # steps between two reads of the clock
SEED = 0  # all PyTorch backends start with the same weights
UNLIMITED = 10_000_000  # steps or epochs, more than any measurement needs
Precision = Literal["fp32", "bf16"]
Compile = Literal["on", "off"]
MATRIX_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}  # of the square products that measure the peak


def vaezoo_fit(precision: Precision, compiled: Compile, job: Job, channel: WorkerChannel) -> None:
    """Trains the reference network with the ELBO."""
    name, options = MODELS[job.network]
    fit_model(name, options, precision, compiled, job, channel)


def fit_model(
    name: str,
    options: dict[str, object],
    precision: Precision,
    compiled: Compile,
    job: Job,
    channel: WorkerChannel,
    likelihood: str | None = None,
) -> None:
    """Runs one long `Trainer.fit` of a model with its own objective.

    The trainer's clock excludes the time that `on_report` waits for a turn.
    """
    torch.set_num_threads(job.threads)
    data = load_dataset(job, likelihood)
    torch.manual_seed(SEED)
    _, model, objective = find_model(name).build(options, data.spec)
    channel.info["parameters"] = count_parameters(model) + count_parameters(objective)

    def on_report(report: vaezoo.Report) -> None:
        if report.split == "train":
            images = WINDOW * job.batch
            channel.record_window(WINDOW, images, images / report.images_per_second, -report.metrics["elbo"])

    config = vaezoo.TrainConfig(
        steps=UNLIMITED,
        eval_every=UNLIMITED,
        batch_size=job.batch,
        lr=LR,
        device=job.device,
        precision=precision,
        compile=compiled,
    )
    vaezoo.Trainer(model, objective, data, config, on_report=on_report).fit()


def set_up_torch(job: Job) -> None:
    """Sets the threads, and forbids TF32 as `vaezoo.Trainer` does. PyTorch allows it in convolutions by default."""
    torch.set_num_threads(job.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def plain(job: Job, channel: WorkerChannel) -> None:
    """Trains in eager PyTorch from bytes in the device's memory. The losses are read once per window."""
    x = load_bytes(job).to(job.device)

    def batches() -> Iterator[Tensor]:
        while True:
            for index in torch.randperm(len(x), device=x.device).split(job.batch):
                yield x[index].float() / 255

    train_eagerly(job, channel, batches(), negative_elbo, read_every_loss=False)


def tutorial(job: Job, channel: WorkerChannel) -> None:
    """Trains from a DataLoader over torchvision's images. The loss is read in each step."""
    loader = DataLoader(tutorial_images(job), batch_size=job.batch, shuffle=True)

    def batches() -> Iterator[Tensor]:
        while True:
            for x, _ in loader:
                yield x.to(job.device)

    train_eagerly(job, channel, batches(), tutorial_loss, read_every_loss=True)


def tutorial_images(job: Job) -> TorchDataset[Any]:
    """Returns torchvision's MNIST, or the packaged digits as a data set that creates its images in the same way."""
    from PIL import Image
    from torchvision import datasets, transforms

    if job.data == "mnist":
        return datasets.MNIST(job.data_dir, train=True, transform=transforms.ToTensor())  # type: ignore[no-any-return]
    x, to_tensor = load_bytes(job).squeeze(1), transforms.ToTensor()

    class Digits(TorchDataset[Any]):
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return to_tensor(Image.fromarray(x[index].numpy(), mode="L")), 0

    return Digits()


def train_eagerly(
    job: Job,
    channel: WorkerChannel,
    batches: Iterable[Tensor],
    loss_fn: Callable[[PlainVAE, Tensor], Tensor],
    *,
    read_every_loss: bool,
) -> None:
    """Runs the training loop of most tutorials. `read_every_loss` reads the loss in each step."""
    set_up_torch(job)
    torch.manual_seed(SEED)
    model = PlainVAE(job.network).to(job.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    channel.info["parameters"] = count_parameters(model)
    losses: list[Any] = []
    images, start = 0, time.perf_counter()
    for x in batches:
        optimizer.zero_grad()
        loss = loss_fn(model, x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item() if read_every_loss else loss.detach())
        images += len(x)
        if len(losses) == WINDOW:
            # float() waits for a GPU, so the clock is read after all steps are done.
            mean = float(torch.as_tensor(losses).mean() if read_every_loss else torch.stack(losses).mean())
            channel.record_window(WINDOW, images, time.perf_counter() - start, mean)
            losses.clear()
            images, start = 0, time.perf_counter()


def pythae(job: Job, channel: WorkerChannel) -> None:
    """Trains in pythae. The code is in train_pythae.py, so that the other backends do not import pythae."""
    from train_pythae import train

    train(job, channel)


def jax(job: Job, channel: WorkerChannel) -> None:
    """Trains in JAX. The code is in train_jax.py, so that the other backends do not import JAX."""
    from train_jax import train

    train(job, channel)


def peak(job: Job, channel: WorkerChannel) -> None:
    """Measures the machine's rate of matrix products for each precision and size, without any training."""
    set_up_torch(job)
    rate = partial(matmul_rate, job.device == "cuda")

    def random_pair(dtype: torch.dtype, size: int) -> tuple[Tensor, int]:
        return torch.rand(2, size, size, device=job.device).to(dtype), 2 * size**3

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    # A CPU without bfloat16 instructions computes such products hundreds of times slower than float32's. Skip them.
    small = {name: rate(*random_pair(dtype, 256), 0.01) for name, dtype in dtypes.items()}
    pairs = {
        f"{name} {size}": random_pair(dtypes[name], size)
        for name, size in itertools.product(dtypes, MATRIX_SIZES[job.device])
        if small[name] > small["fp32"] / 10
    }
    rates = {name: rate(*pair, 0.1) for name, pair in pairs.items()}
    channel.send({"ready": True, "rates": rates})
    while True:
        channel.wait_for_turn()
        rates = {name: rate(*pair, channel.turn_seconds / len(pairs)) for name, pair in pairs.items()}
        channel.send({"rates": rates})


def matmul_rate(cuda: bool, pair: Tensor, flops: int, seconds: float) -> float:
    """Multiplies two matrices for some seconds and returns the operations per second."""
    out, count, start = torch.empty_like(pair[0]), 0, time.perf_counter()
    while not count or time.perf_counter() - start < seconds:
        for _ in range(10 if cuda else 1):
            torch.mm(pair[0], pair[1], out=out)
            count += 1
        if cuda:
            torch.cuda.synchronize()
    return count * flops / (time.perf_counter() - start)


BACKENDS: dict[str, Callable[[Job, WorkerChannel], None]] = {
    "tutorial": tutorial,
    "pythae": pythae,
    "plain": plain,
    "jax": jax,
    "vaezoo": partial(vaezoo_fit, "fp32", "off"),
    "vaezoo compiled": partial(vaezoo_fit, "fp32", "on"),
    "vaezoo compiled bf16": partial(vaezoo_fit, "bf16", "on"),
    "peak": peak,
}
