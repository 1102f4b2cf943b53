"""The backends in pythae 0.1.2: its models and trainers with our networks, over its data set of floats."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from pythae import models, trainers
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn

from baselines import SEED, UNLIMITED, WINDOW, set_up_torch
from reference_model import LATENT_DIM, LR, PIXELS, Job, PlainVAE, count_parameters, load_bytes, load_dataset
from train_workers import WorkerChannel
from vaezoo import Batch, StepContext
from vaezoo.registry import find_model
from zoo_pairs import Pair


class Encoder(BaseEncoder):  # type: ignore[misc]
    """The encoder of the reference network."""

    def __init__(self, net: PlainVAE, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.net = net.encoder
        self.encode = net.encode

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.encode(x)
        return ModelOutput(embedding=mu, log_covariance=logvar)


class Decoder(BaseDecoder):  # type: ignore[misc]
    """A decoder whose network returns logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Any:
        return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))


class ZooEncoder(BaseEncoder):  # type: ignore[misc]
    """The encoder of one of our models. The attribute `vae` is a tuple, so that its decoder is not part of this."""

    def __init__(self, vae: Any, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.net = vae.encoder
        self.vae = (vae,)

    def forward(self, x: Tensor) -> Any:
        posterior = self.vae[0].encode(x)
        if hasattr(posterior, "logvar"):
            return ModelOutput(embedding=posterior.mu, log_covariance=posterior.logvar)
        if hasattr(posterior, "kappa"):  # pythae's concentration is softplus(...) + 1
            raw = torch.log(torch.expm1((posterior.kappa - 1).clamp(min=1e-3)))
            return ModelOutput(embedding=posterior.mu, log_concentration=raw)
        embedding = posterior.features if hasattr(posterior, "features") else posterior.z
        return ModelOutput(embedding=embedding, log_covariance=torch.zeros_like(embedding))


class Discriminator(BaseDiscriminator):  # type: ignore[misc]
    """The discriminator of our vae-gan."""

    depth = 1  # number of layers whose features pythae may ask for

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, output_layer_levels: Any = None) -> Any:
        (out,) = self.net(x)
        if output_layer_levels:
            return ModelOutput(embedding_layer_1=out.features)
        return ModelOutput(embedding=torch.sigmoid(out.logits))


class LatentDiscriminator(BaseDiscriminator):  # type: ignore[misc]
    """The discriminator of our aae."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return ModelOutput(embedding=torch.sigmoid(self.net(x)))


class WindowCallback(TrainingCallback):  # type: ignore[misc]
    """Reports to the channel after each window of steps.

    Args:
        job: The worker's task.
        channel: Where to report.
        size: Number of training images.
        losses: Losses of the window, which another hook fills. Empty without such a hook.
    """

    def __init__(self, job: Job, channel: WorkerChannel, size: int, losses: list[float]) -> None:
        self.job, self.channel, self.size, self.losses = job, channel, size, losses
        self.remaining = self.steps = self.images = 0
        self.start = 0.0

    def on_epoch_begin(self, *_: object, **__: object) -> None:
        self.remaining = self.size
        self.start = self.start or time.perf_counter()

    def on_train_step_end(self, *_: object, **__: object) -> None:
        self.steps += 1
        self.images += min(self.job.batch, self.remaining)
        self.remaining -= self.job.batch
        if self.steps == WINDOW:
            loss = sum(self.losses) / len(self.losses) if self.losses else None
            self.channel.record_window(WINDOW, self.images, time.perf_counter() - self.start, loss)
            self.losses.clear()
            self.steps, self.images, self.start = 0, 0, time.perf_counter()


def train(job: Job, channel: WorkerChannel) -> None:
    """Trains pythae's VAE with the reference network."""
    set_up_torch(job)
    torch.manual_seed(SEED)
    net, latent_dim = PlainVAE(job.network), LATENT_DIM[job.network]
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=latent_dim, reconstruction_loss="bce")
    fit(VAE(config, encoder=Encoder(net, latent_dim), decoder=Decoder(net.decoder)), "BaseTrainer", job, channel)


def train_model(pair: Pair, job: Job, channel: WorkerChannel) -> None:
    """Trains pythae's model of a pair with our networks."""
    set_up_torch(job)
    torch.manual_seed(SEED)
    _, vae, objective = find_model(pair.model).build(pair.options, load_dataset(job, pair.likelihood).spec)
    trainer = {
        "FactorVAE": "AdversarialTrainer",
        "Adversarial_AE": "AdversarialTrainer",
        "VAEGAN": "CoupledOptimizerAdversarialTrainer",
        "PIWAE": "CoupledOptimizerTrainer",
        "RAE_L2": "CoupledOptimizerTrainer",
    }
    fit(peer_model(pair, vae, objective), trainer.get(pair.peer, "BaseTrainer"), job, channel, pair.training)


def peer_model(pair: Pair, vae: Any, objective: Any) -> Any:
    """Returns pythae's model with the networks of ours."""
    latent_dim = int(vae.latent_shape[0])
    config_name = next(n for n in (f"{pair.peer}Config", f"{pair.peer}_Config") if hasattr(models, n))
    config = getattr(models, config_name)(input_dim=(1, 28, 28), latent_dim=latent_dim, **pair.settings)
    networks: dict[str, nn.Module] = {"encoder": ZooEncoder(vae, latent_dim), "decoder": Decoder(vae.decoder)}
    if pair.peer == "VAEGAN":
        networks["discriminator"] = Discriminator(objective.discriminator)
    if pair.peer == "Adversarial_AE":
        networks["discriminator"] = LatentDiscriminator(objective.discriminator)
    return getattr(models, pair.peer)(config, **networks)


def first_losses(pair: Pair, job: Job) -> tuple[float, float]:
    """Returns the loss of the first step, ours and pythae's, with the same weights, images and noise.

    Of adversarial models it is that of the autoencoder. From ours, the constant of a Gaussian density is left out.
    """
    torch.manual_seed(SEED)
    data = load_dataset(job, pair.likelihood)
    _, vae, objective = find_model(pair.model).build(pair.options, data.spec)
    peer, x = peer_model(pair, vae, objective), data.train.batch(slice(0, job.batch)).x
    torch.manual_seed(SEED + 1)
    losses = objective(vae, Batch(x), StepContext.initial()._replace(train_size=len(data.train))).losses
    ours = float(losses["vae"] if "vae" in losses else sum(losses.values()))
    if pair.likelihood == "gaussian":
        ours -= 0.5 * math.log(2 * math.pi) * PIXELS
    torch.manual_seed(SEED + 1)
    output = peer({"data": x}, dataset_size=len(data.train))
    return ours, float(output.get("autoencoder_loss", output.loss))


def fit(
    model: Any, trainer: str, job: Job, channel: WorkerChannel, settings: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Runs one of pythae's trainers. It reports the loss once per epoch, so a hook reads it until the warm-up ends.

    Args:
        model: The model.
        trainer: Name of the trainer's class.
        job: The worker's task.
        channel: Where to report.
        settings: Further fields of the trainer's config.
    """
    logging.disable(logging.WARNING)
    x = load_bytes(job).float() / 255
    channel.info["parameters"] = count_parameters(model)
    losses: list[float] = []

    def read_loss(module: nn.Module, inputs: object, out: Any) -> None:
        if channel.warm:
            hook.remove()
        else:
            losses.append(float(out.loss.detach()))

    hook = model.register_forward_hook(read_loss)
    rates = {
        "BaseTrainer": ("learning_rate",),
        "CoupledOptimizerTrainer": ("encoder_learning_rate", "decoder_learning_rate"),
        "AdversarialTrainer": ("autoencoder_learning_rate", "discriminator_learning_rate"),
        "CoupledOptimizerAdversarialTrainer": (
            *("encoder_learning_rate", "decoder_learning_rate", "discriminator_learning_rate"),
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        training = getattr(trainers, f"{trainer}Config")(
            output_dir=folder,
            num_epochs=UNLIMITED,
            per_device_train_batch_size=job.batch,
            no_cuda=job.device == "cpu",
            **dict.fromkeys(rates[trainer], LR),
            **settings,
        )
        getattr(trainers, trainer)(
            model,
            BaseDataset(x, torch.ones(len(x))),
            training_config=training,
            callbacks=[WindowCallback(job, channel, len(x), losses)],
        ).train()
