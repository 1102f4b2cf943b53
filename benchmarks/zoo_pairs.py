"""The models that pythae 0.1.2 has too, each with the options that make both the same.

pythae's Hamiltonian VAE is not among them. It refuses grey levels, on which all others are trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A model of both zoos.

    Attributes:
        model: Our model.
        peer: Name of pythae's class.
        options: Options of our model.
        settings: Fields of pythae's config.
        training: Fields of the config of pythae's trainer.
        likelihood: Our likelihood. None: that of the data, bernoulli.
        differs: Why the losses of the first step are not equal. Empty: they are.
    """

    model: str
    peer: str
    options: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)
    likelihood: str | None = None
    differs: str = ""


BCE = {"reconstruction_loss": "bce"}
NO_BOUND = "pythae reports a weighted mean of log w, which is not the bound; its gradient is right"
EXCHANGED = "pythae reports a weighted mean of log w; it also exchanges the two numbers of samples, here equal"
PAIRS = {
    "autoencoder": Pair(
        model="autoencoder", peer="AE", likelihood="gaussian", differs="pythae does not halve the squared error"
    ),
    "vae, dense": Pair(model="mlp-vae", peer="VAE", settings=BCE),
    "vae, convolutional": Pair(model="conv-vae", peer="VAE", settings=BCE),
    "beta-vae": Pair(model="beta-vae", peer="BetaVAE", settings=BCE | {"beta": 4.0}),
    "iwae, k=5": Pair(
        model="iwae",
        peer="IWAE",
        options={"objective.k": 5},
        settings=BCE | {"number_samples": 5},
        differs=NO_BOUND,
    ),
    "miwae, 4 of 4": Pair(
        model="miwae",
        peer="MIWAE",
        options={"objective.k": 4, "objective.m": 4},
        settings=BCE | {"number_gradient_estimates": 4, "number_samples": 4},
        differs=EXCHANGED,
    ),
    "piwae, 4 of 4": Pair(
        model="piwae",
        peer="PIWAE",
        options={"objective.k": 4, "objective.m": 4},
        settings=BCE | {"number_gradient_estimates": 4, "number_samples": 4},
        differs=EXCHANGED,
    ),
    "ciwae, k=16": Pair(
        model="ciwae",
        peer="CIWAE",
        options={"objective.k": 16},
        settings=BCE | {"number_samples": 16, "beta": 0.05},
        differs=NO_BOUND,
    ),
    "vamp-vae": Pair(
        model="vamp-vae",
        peer="VAMP",
        settings=BCE | {"number_components": 500},
        differs="pythae's pseudo-inputs come from a layer and start elsewhere",
    ),
    "iaf-vae": Pair(
        model="iaf-vae",
        peer="VAE_IAF",
        settings=BCE | {"n_made_blocks": 2, "n_hidden_in_made": 1, "hidden_size": 64},
        differs="pythae's flow has other networks, which are not given x",
    ),
    # pythae's discriminator has five hidden layers of 1000 units.
    "factor-vae": Pair(
        model="factor-vae",
        peer="FactorVAE",
        options={"objective.hidden": 1000, "objective.layers": 5},
        settings=BCE | {"gamma": 10.0},
        differs="pythae halves each batch at random, and has its own discriminator",
    ),
    "beta-tc-vae": Pair(
        model="beta-tc-vae",
        peer="BetaTCVAE",
        settings=BCE | {"alpha": 1.0, "beta": 6.0, "gamma": 1.0},
        differs="pythae has the weights of q(z) in a column instead of the diagonal, and estimates all of the KL",
    ),
    # InfoVAE's alpha is 1 - beta, and its lambda is weight + 1 - alpha.
    "info-vae": Pair(model="info-vae", peer="INFOVAE_MMD", settings=BCE | {"alpha": 0.5, "lbd": 10.5}),
    "wae": Pair(
        model="wae",
        peer="WAE_MMD",
        settings={"reg_weight": 10.0, "reconstruction_loss_scale": 0.5},
        likelihood="gaussian",
    ),
    "aae": Pair(
        model="aae",
        peer="Adversarial_AE",
        options={"objective.weight": 1.0},
        settings=BCE | {"adversarial_loss_scale": 1.0, "deterministic_posterior": True},
    ),
    # pythae's squared error is not halved, and Adam's weight decay is half the derivative of a squared norm.
    "rae, l2": Pair(
        model="rae",
        peer="RAE_L2",
        settings={"embedding_weight": 0.02},
        training={"decoder_optimizer_params": {"weight_decay": 0.004}},
        likelihood="gaussian",
        differs="pythae's loss is twice ours, and its penalty is weight decay",
    ),
    "rae, gp": Pair(
        model="rae",
        peer="RAE_GP",
        options={"objective.penalty": "gp"},
        settings={"embedding_weight": 0.02, "reg_weight": 0.002},
        likelihood="gaussian",
        differs="pythae's loss is twice ours, and its penalty the gradient of a sum by x, not the paper's",
    ),
    "s-vae": Pair(model="s-vae", peer="SVAE", settings=BCE, differs="pythae draws from the sphere in another way"),
    "poincare-vae": Pair(model="poincare-vae", peer="PoincareVAE", settings=BCE),
    "vae-gan": Pair(
        model="vae-gan",
        peer="VAEGAN",
        differs="pythae has other losses, and its discriminator sees no reconstructions",
    ),
    "vq-vae": Pair(
        model="vq-vae", peer="VQVAE", settings={"use_ema": True}, differs="pythae's codebook starts elsewhere"
    ),
}
