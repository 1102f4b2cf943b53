"""The contestants of train_throughput.py: each trains for ever and hands what it did to `WorkerChannel.window`."""

from __future__ import annotations

import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

import vaezoo
from reference_model import LATENT, LR, MODELS, Job, PlainVAE, load, loss_of, parameters, tutorial_loss_of
from train_workers import WorkerChannel
from vaezoo.training.trainer import REPORT_EVERY

WINDOW = REPORT_EVERY  # steps between two looks at the clock
SEED = 0  # of the weights, so that PyTorch's contestants begin with the same
FOR_EVER = 10_000_000  # steps or epochs
Precision = Literal["fp32", "bf16"]
Compile = Literal["on", "off"]
PEAK_SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}  # of square products


def vaezoo_fit(precision: Precision, compiled: Compile, job: Job, turns: WorkerChannel) -> None:
    """One long `Trainer.fit`; the trainer stops its clock while `on_report` waits for a turn."""
    torch.set_num_threads(job.threads)
    data = load(job)
    name, options = MODELS[job.network]
    torch.manual_seed(SEED)
    model = vaezoo.create_model(name, data, options)
    turns.facts["parameters"] = parameters(model)

    def on_report(report: vaezoo.Report) -> None:
        if report.split == "train":
            images = WINDOW * job.batch
            turns.window(WINDOW, images, images / report.images_per_second, -report.metrics["elbo"])

    config = vaezoo.TrainConfig(
        steps=FOR_EVER,
        eval_every=FOR_EVER,
        batch_size=job.batch,
        lr=LR,
        device=job.device,
        precision=precision,
        compile=compiled,
    )
    vaezoo.Trainer(model, vaezoo.ELBO(), data, config, on_report=on_report).fit()


def plain(job: Job, turns: WorkerChannel) -> None:
    """Eager PyTorch over bytes in the device's memory; the loss is read once a window."""
    x = load(job).train.x.to(job.device)

    def batches() -> Iterator[Tensor]:
        while True:
            for index in torch.randperm(len(x), device=x.device).split(job.batch):
                yield x[index].float() / 255

    eager(job, turns, batches(), loss_of, each=False)


def tutorial(job: Job, turns: WorkerChannel) -> None:
    """A DataLoader over torchvision's images, and the loss read in each step."""
    loader = DataLoader(tutorial_images(job), batch_size=job.batch, shuffle=True)

    def batches() -> Iterator[Tensor]:
        while True:
            for x, _ in loader:
                yield x.to(job.device)

    eager(job, turns, batches(), tutorial_loss_of, each=True)


def tutorial_images(job: Job) -> TorchDataset[Any]:
    """Returns torchvision's MNIST; for the packaged digits a set that makes its images in the same way."""
    from PIL import Image
    from torchvision import datasets, transforms

    if job.data == "mnist":
        return datasets.MNIST(job.data_dir, train=True, transform=transforms.ToTensor())  # type: ignore[no-any-return]
    x, to_tensor = load(job).train.x.squeeze(1), transforms.ToTensor()

    class Digits(TorchDataset[Any]):
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return to_tensor(Image.fromarray(x[index].numpy(), mode="L")), 0

    return Digits()


def eager(
    job: Job, turns: WorkerChannel, batches: Iterable[Tensor], loss_fn: Callable[[PlainVAE, Tensor], Tensor], each: bool
) -> None:
    """The loop of most tutorials; `each` reads the loss in each step."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(SEED)
    model = PlainVAE(job.network).to(job.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    turns.facts["parameters"] = parameters(model)
    losses: list[Any] = []
    images, start = 0, time.perf_counter()
    for x in batches:
        optimizer.zero_grad()
        loss = loss_fn(model, x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item() if each else loss.detach())
        images += len(x)
        if len(losses) == WINDOW:
            mean = float(torch.as_tensor(losses).mean() if each else torch.stack(losses).mean())  # waits for a GPU
            turns.window(WINDOW, images, time.perf_counter() - start, mean)
            losses.clear()
            images, start = 0, time.perf_counter()


def pythae(job: Job, turns: WorkerChannel) -> None:
    """pythae's VAE in its BaseTrainer, over its data set of floats; the network is ours."""
    logging.disable(logging.WARNING)
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self, net: PlainVAE) -> None:
            super().__init__()
            self.latent_dim = LATENT[job.network]
            self.net = net.encoder
            self.encode = net.encode

        def forward(self, x: Tensor) -> Any:
            mu, logvar = self.encode(x)
            return ModelOutput(embedding=mu, log_covariance=logvar)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))

    class Waiting(TrainingCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = self.steps = self.images = 0
            self.start = 0.0

        def on_epoch_begin(self, *_: object, **__: object) -> None:
            self.left = len(x)
            self.start = self.start or time.perf_counter()

        def on_train_step_end(self, *_: object, **__: object) -> None:
            self.steps += 1
            self.images += min(job.batch, self.left)
            self.left -= job.batch
            if self.steps == WINDOW:
                loss = sum(losses) / len(losses) if losses else None
                turns.window(WINDOW, self.images, time.perf_counter() - self.start, loss)
                losses.clear()
                if turns.warm:
                    hook.remove()
                self.steps, self.images, self.start = 0, 0, time.perf_counter()

    torch.set_num_threads(job.threads)
    x = load(job).train.x.float() / 255
    torch.manual_seed(SEED)
    net = PlainVAE(job.network)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT[job.network], reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(net), decoder=Decoder(net.decoder))
    turns.facts["parameters"] = parameters(model)
    losses: list[float] = []  # pythae tells the loss only once an epoch; the hook is gone after the warm-up
    with tempfile.TemporaryDirectory() as folder:
        training = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=FOR_EVER,
            learning_rate=LR,
            per_device_train_batch_size=job.batch,
            no_cuda=job.device == "cpu",
        )
        data = BaseDataset(x, torch.ones(len(x)))
        trainer = BaseTrainer(model, data, training_config=training, callbacks=[Waiting()])
        hook = model.register_forward_hook(lambda _, __, out: losses.append(float(out.loss.detach())))
        trainer.train()


def jax(job: Job, turns: WorkerChannel) -> None:
    """See train_jax.py, which only this imports."""
    from train_jax import train

    train(job, turns)


def peak(job: Job, turns: WorkerChannel) -> None:
    """No training: the machine's largest rate of matrix products, in each precision and size."""
    torch.set_num_threads(job.threads)
    rate = partial(multiply, job.device == "cuda")

    def pair(dtype: torch.dtype, side: int) -> tuple[Tensor, int]:
        return torch.rand(2, side, side, device=job.device).to(dtype), 2 * side**3

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    # A CPU without instructions for bfloat16 computes its products hundreds of times slower than float32's.
    small = {name: rate(*pair(dtype, 256), 0.01) for name, dtype in kinds.items()}
    pairs = {
        f"{name} {side}": pair(kinds[name], side)
        for name, side in itertools.product(kinds, PEAK_SIDES[job.device])
        if small[name] > small["fp32"] / 10
    }
    rates = {name: rate(*pair, 0.1) for name, pair in pairs.items()}
    turns.answer({"ready": True, "rates": rates})
    while True:
        turns.wait()
        rates = {name: rate(*pair, turns.asked / len(pairs)) for name, pair in pairs.items()}
        turns.answer({"rates": rates})


def multiply(cuda: bool, pair: Tensor, flops: int, seconds: float) -> float:
    """Multiplies two matrices for some seconds and returns operations a second."""
    out, done, start = torch.empty_like(pair[0]), 0, time.perf_counter()
    while not done or time.perf_counter() - start < seconds:
        for _ in range(10 if cuda else 1):
            torch.mm(pair[0], pair[1], out=out)
            done += 1
        if cuda:
            torch.cuda.synchronize()
    return done * flops / (time.perf_counter() - start)


CONTESTANTS: dict[str, Callable[[Job, WorkerChannel], None]] = {
    "tutorial": tutorial,
    "pythae": pythae,
    "plain": plain,
    "jax": jax,
    "vaezoo": partial(vaezoo_fit, "fp32", "off"),
    "vaezoo compiled": partial(vaezoo_fit, "fp32", "on"),
    "vaezoo compiled bf16": partial(vaezoo_fit, "bf16", "on"),
    "peak": peak,
}
