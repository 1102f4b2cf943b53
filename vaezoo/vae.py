"""VAE, the base class of every model."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from vaezoo.core.precision import to_float32
from vaezoo.data.base import LABELS_HINT, Batch, Split, given
from vaezoo.data.spec import DataSpec
from vaezoo.decoding import decode_latents
from vaezoo.errors import PluginError, UnsupportedDataError, VaezooError
from vaezoo.posteriors.base import Posterior, draw, map_tensors, named_outputs
from vaezoo.priors.base import Autoregressive, Prior
from vaezoo.priors.standard_normal import StandardNormal


class VAEOutput(NamedTuple):
    """One sample z for each row of a batch, and what follows from it.

    Attributes:
        z: The latents, `(B, *latent_shape)`.
        params: The decoder's output, `(B, *params_shape)`.
        kl_terms: The parts of KL(q(z|x) || p(z)), `(B, parts)`, in nats. With `at_sample` they add up to
            log q(z|x) - log p(z).
        auxiliary_loss: What training minimises besides the bound, `(B,)`, such as a quantizer's commitment. None:
            nothing.
    """

    z: Tensor
    params: Tensor
    kl_terms: Tensor
    auxiliary_loss: Tensor | None = None


class LatentLevel(NamedTuple):
    """Latents of one kind that lie side by side in the flattened z.

    Attributes:
        name: Its name, such as `top`.
        latents: How many there are.
        codes: Number of codes of a quantizer that each of them chooses from (K). 0: they are real numbers.
        shape: How they are arranged, such as the height and width of a grid. Empty: in a row.
    """

    name: str
    latents: int
    codes: int = 0
    shape: tuple[int, ...] = ()


class Graph(NamedTuple):
    """A function of named tensors that an export writes to a file.

    Attributes:
        names: Names of the inputs.
        run: The function. It returns the outputs by name.
        inputs: Returns the inputs for a batch of data.
        more: The same at other sizes, for inputs whose sizes do not follow from those of x.
        repeats: The graph of a single step that the exporter repeats for each id of `VAE.autoregressive`. It takes the
            most probable ids, and so does `run`. Empty: the exporter traces `run`.
    """

    names: tuple[str, ...]
    run: Callable[..., dict[str, Tensor]]
    inputs: Callable[[Batch], tuple[Tensor, ...]]
    more: tuple[Callable[[Batch], tuple[Tensor, ...]], ...] = ()
    repeats: str = ""


class VAE(nn.Module, ABC):
    """A model with an encoder q(z|x), a decoder p(x|z) and a prior p(z).

    A new model implements `encode` and `decode`. Training, evaluation and export need nothing else. A model that looks
    at more than x and z names it: with `encoder_inputs = ("x", "y")` and `decoder_inputs = ("y",)` it implements
    `encode(x, y)` and `decode(z, y)`. The library calls `infer`, `generate` and the model itself, with the whole batch.

    Args:
        data: The data to model.
        latent_shape: Shape of one latent z.
        prior: p(z). The standard normal by default.

    Attributes:
        encoder_inputs: The fields of a batch that `encode` takes.
        decoder_inputs: The fields of a batch that `decode` takes after z.
        autoregressive: How x is drawn id by id, if the decoder looks at x. None for other decoders.
        left_out: What of q(z|x) the graph of `encode` leaves out, in sentences for users. Empty: nothing.
        latent_levels: The levels of z, in the order in which they lie in it. A quantizer declares how many codes each
            has, so that their usage can be evaluated. Empty: nothing is declared.
        data: As given.
        latent_shape: As given.
        prior: p(z).
        likelihood: The family of p(x|z) that `data.likelihood` names.
    """

    encoder_inputs: tuple[str, ...] = ("x",)
    decoder_inputs: tuple[str, ...] = ()
    autoregressive: Autoregressive | None = None
    left_out: str = ""
    latent_levels: tuple[LatentLevel, ...] = ()

    def __init__(self, data: DataSpec, latent_shape: tuple[int, ...], prior: Prior | None = None) -> None:
        super().__init__()
        self.data = data
        self.latent_shape = latent_shape
        self.prior = StandardNormal(latent_shape) if prior is None else prior
        self.likelihood = data.make_likelihood()

    @abstractmethod
    def encode(self, x: Tensor) -> Posterior:
        """Returns q(z|x) for `x` of shape `(B, *data.shape)`. It must be deterministic."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Returns the parameters of p(x|z), `(B, *data.params_shape)`, for `z` of shape `(B, *latent_shape)`.

        They are unbounded: logits, never probabilities.
        """

    def init_from_data(self, train: Split) -> None:
        """Initialises weights from the training data. Does nothing by default.

        `vaezoo.train` calls it once, before the first step. It must be deterministic: a training that is killed
        before its first checkpoint starts again and must start the same way.

        Args:
            train: The training split.
        """

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of x that an export must work with, that of the data first. Axes in which they differ are free."""
        return (self.data.shape,)

    def inference_parameters(self) -> list[nn.Parameter]:
        """Returns the parameters that only q(z|x) has: those of the modules `encoder` and `head`.

        Raises:
            VaezooError: If the model has no such modules.
        """
        parts = [
            getattr(self, name) for name in ("encoder", "head") if isinstance(getattr(self, name, None), nn.Module)
        ]
        if not parts:
            raise VaezooError(f"{type(self).__name__} has no module 'encoder'", "use another objective")
        return [parameter for part in parts for parameter in part.parameters()]

    def infer(self, batch: Batch) -> Posterior:
        """Returns q(z|x) for a batch, with whatever else of it the model looks at."""
        return self.encode(*given(self.encoder_inputs, batch))

    def generate(self, z: Tensor, batch: Batch) -> Tensor:
        """Returns the parameters of p(x|z) for latents, one for each row of a batch."""
        return self.decode(z, *given(self.decoder_inputs, batch))

    def forward(self, posterior: Posterior, batch: Batch, *, at_sample: bool = False) -> VAEOutput:
        """Draws z from q(z|x) and decodes it. The networks may run in bfloat16. z and the KL are float32 even then.

        A model overrides this if z, its KL and the decoder's output come from one pass, or if gradients do not flow
        through z.

        Args:
            posterior: What `infer` returned. For K samples its rows are repeated; see `vaezoo.posteriors.base.repeat`.
            batch: The rows that it belongs to, repeated in the same way.
            at_sample: Whether the parts of the KL must add up to log q(z|x) - log p(z) at z, as importance weights
                need it.

        Raises:
            VaezooError: If that is asked for and q(z|x) has no density.
        """
        conditions = given(self.prior.inputs, batch)
        with torch.autocast(batch.x.device.type, enabled=False):
            posterior = map_tensors(posterior, to_float32)
            z, log_q = draw(posterior, density=at_sample)
        params = to_float32(self.generate(z, batch))
        with torch.autocast(batch.x.device.type, enabled=False):
            if log_q is None:
                return VAEOutput(z, params, self.prior.kl_terms(posterior, z, *conditions))
            return VAEOutput(z, params, (log_q - self.prior.log_prob(z, *conditions)).unsqueeze(1))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Returns the mean of p(x|z) at the mode of q(z|x), `(B, *data.shape)`, without gradients.

        Args:
            x: Examples, `(B, *data.shape)`.
            y: Their labels, `(B,)` or `(B, factors)`, for a conditional model.

        Raises:
            VaezooError: If a conditional model gets no labels, or wrong ones.
        """
        batch = Batch(x, y)
        require_labels(self, batch)
        return self.point_estimate(self.infer(batch).mode(), batch)

    def point_estimate(self, z: Tensor, batch: Batch) -> Tensor:
        """Returns the mean of p(x|z) for latents, or the most probable ids, `(B, *data.shape)`.

        Args:
            z: Latents, `(B, *latent_shape)`.
            batch: What else the decoder is given. Its x is not used.
        """
        return decode_latents(self, z, batch, greedy=True)

    @torch.no_grad()
    def sample(self, n: int, y: Tensor | None = None) -> Tensor:
        """Returns the mean of p(x|z) for n latents drawn from the prior, `(n, *data.shape)`, without gradients.

        Args:
            n: Number of samples.
            y: Their labels, `(n,)` or `(n, factors)`, for a conditional model. By default all labels in turn.

        Raises:
            VaezooError: If labels are wrong, or there is no way to draw from the prior.
        """
        batch = blank_batch(self, n, y)
        return decode_latents(self, sample_prior(self, batch), batch)

    def graphs(self) -> dict[str, Graph]:
        """Returns the graphs of an export by name. Override it for a model that takes more than a batch has."""
        graphs = {
            "encoder": Graph(
                self.encoder_inputs,
                lambda *inputs: named_outputs(self.encode(*inputs))[0],
                lambda batch: given(self.encoder_inputs, batch),
            ),
            "decoder": Graph(
                ("z", *self.decoder_inputs),
                lambda *inputs: self.likelihood.outputs(self.decode(*inputs)),
                lambda batch: (self.infer(batch).mode(), *given(self.decoder_inputs, batch)),
            ),
        }
        prior = prior_graph(self)
        return graphs if prior is None else graphs | {"prior": prior}


def prior_graph(vae: VAE) -> Graph | None:
    """Returns the graph of a prior, or None. The standard normal needs none, because its noise is z."""
    prior = vae.prior
    if prior.autoregressive is not None:
        return Graph(
            ("z", *prior.inputs),
            lambda *inputs: {"logits": prior.id_logits(*inputs)},
            lambda batch: (prior_codes(vae, batch), *given(prior.inputs, batch)),
        )
    if prior.noise_shape is None or type(prior).from_noise is StandardNormal.from_noise:
        return None
    shape = prior.noise_shape

    def inputs(batch: Batch) -> tuple[Tensor, ...]:
        noise = torch.randn((len(batch.x), *shape), generator=Generator().manual_seed(1))
        return noise, *given(prior.sample_inputs, batch)

    return Graph(("noise", *prior.sample_inputs), lambda *given: {"z": prior.from_noise(*given)}, inputs)


def prior_codes(vae: VAE, batch: Batch) -> Tensor:
    """Returns codes for an autoregressive prior, `(B, *latent_shape)`, whose size does not follow that of x.

    They are those of the batch, or of generated examples if its images have another size than the data.
    """
    if tuple(batch.x.shape[1:]) != vae.data.shape:
        batch = Batch(example_batch(vae.data, len(batch.x), Generator().manual_seed(1)).x, batch.y)
    return vae.infer(batch).mode()


def is_standard_normal(prior: Prior) -> bool:
    """Tells whether samples of a prior are standard normal noise itself, which a subclass may change."""
    methods = type(prior)
    return methods.from_noise is StandardNormal.from_noise and methods.sample is StandardNormal.sample


def sample_prior(vae: VAE, batch: Batch) -> Tensor:
    """Draws one z from the prior for each row of a batch, `(B, *latent_shape)`."""
    return vae.prior.sample(len(batch.x), *given(vae.prior.sample_inputs, batch))


def blank_batch(vae: VAE, n: int, y: Tensor | None = None) -> Batch:
    """Returns n rows of which only labels are known. By default these are all labels in turn."""
    device, classes = device_of(vae), vae.data.classes
    if y is None and classes:
        columns = [torch.arange(n, device=device) % count for count in classes]
        y = columns[0] if len(classes) == 1 else torch.stack(columns, 1)
    batch = Batch(torch.zeros((n, 0), device=device), y)
    if "y" in sampled_with(vae):
        check_batch_labels(vae, batch)
    return batch


def example_batch(data: DataSpec, n: int, generator: Generator, shape: tuple[int, ...] | None = None) -> Batch:
    """Returns n valid rows that resemble no particular data, on the CPU. Exports are tried on them."""
    x = data.make_kind().example(n, shape or data.shape, generator)
    columns = [torch.randint(0, count, (n,), generator=generator) for count in data.classes]
    if not columns:
        return Batch(x, None)
    return Batch(x, columns[0] if len(columns) == 1 else torch.stack(columns, 1))


def conditioned_on(vae: VAE) -> set[str]:
    """Returns the fields of a batch, besides x, that the model or its prior is given."""
    return {*vae.encoder_inputs, *vae.decoder_inputs, *vae.prior.inputs} - {"x"}


def sampled_with(vae: VAE) -> set[str]:
    """Returns the fields of a batch that may be chosen for samples: those that the model is given, or that z holds."""
    return conditioned_on(vae) | {*vae.prior.sample_inputs}


def check_inputs(vae: VAE) -> None:
    """Raises PluginError if encode or decode takes other arguments than encoder_inputs or decoder_inputs declares."""
    for method, attribute, first in (("encode", "encoder_inputs", ()), ("decode", "decoder_inputs", ("z",))):
        declared = getattr(vae, attribute)
        if not isinstance(declared, tuple) or not set(declared) <= {*Batch._fields}:
            what = f"{attribute} of {type(vae).__name__} is {declared!r}, not a tuple of fields of a batch"
            raise PluginError(what, f'use "x" and "y", such as {attribute} = ("y",)')
        signature = inspect.signature(getattr(vae, method))
        try:
            signature.bind(*first, *declared)
        except TypeError:
            takes = tuple(signature.parameters)
            what = f"{method} of {type(vae).__name__} takes {', '.join(takes)}, but {attribute} is {declared}"
            raise PluginError(what, f"declare {attribute} = {takes[len(first) :]}") from None


def check_fits(vae: VAE, data: DataSpec) -> None:
    """Raises UnsupportedDataError unless data have the kind that a model was built for, and the labels it is given."""
    check_kind(vae.data, data)
    if "y" in conditioned_on(vae):
        check_classes(vae.data, data)


def check_kind(ours: DataSpec, data: DataSpec) -> None:
    """Raises UnsupportedDataError unless data have the kind that a model was built for."""
    if (data.kind, data.vocabulary, data.columns) != (ours.kind, ours.vocabulary, ours.columns):
        what = f"data set '{data.name}' is of kind {describe_kind(data)}"
        raise UnsupportedDataError(
            f"{what}, but the model was made for {describe_kind(ours)}", "give data of the same kind"
        )
    if data.symbols and ours.symbols not in ((), data.symbols):
        raise UnsupportedDataError(
            f"the ids of data set '{data.name}' stand for other symbols than those of the training",
            "give the texts themselves, which become the ids of the model",
        )
    if data.categories and ours.categories not in ((), data.categories):
        changes = zip(data.categories, ours.categories, data.columns, strict=True)
        column = next(column.rpartition(":")[0] for a, b, column in changes if a != b)
        raise UnsupportedDataError(
            f"data set '{data.name}' has other categories of '{column}' than the training",
            "give the table itself, whose categories are found by their names",
        )
    if data.column_names and ours.column_names not in ((), data.column_names):
        pairs = zip(data.column_names, ours.column_names, strict=True)
        found, wanted = next((a, b) for a, b in pairs if a != b)
        raise UnsupportedDataError(
            f"data set '{data.name}' has the column '{found}' where the model was made for '{wanted}'",
            "give the data frame itself, whose columns are found by their names",
        )
    if data.scaling != ours.scaling:
        raise UnsupportedDataError(
            f"data set '{data.name}' is not scaled as the data of the training were",
            "load it with scale=run.data.scaling",
        )


def check_classes(ours: DataSpec, data: DataSpec) -> None:
    """Raises UnsupportedDataError unless data have the labels that a model was built for."""
    if not data.classes and ours.classes:
        raise UnsupportedDataError(f"the model is given labels, but '{data.name}' has none", LABELS_HINT)
    if data.classes != ours.classes:
        what = f"the labels of '{data.name}' have {data.classes or 'no'} values"
        raise UnsupportedDataError(
            f"{what}, but the model was made for {ours.classes}", "give data with the labels of the training"
        )
    if data.class_names and ours.class_names not in ((), data.class_names):
        raise UnsupportedDataError(
            f"the classes of '{data.name}' are {', '.join(data.class_names)}, but the model was made for "
            f"{', '.join(ours.class_names)}",
            "give data with the classes of the training",
        )


def describe_kind(data: DataSpec) -> str:
    """Returns the kind of data with its vocabulary or columns, for messages."""
    if data.kind == "tokens":
        return f"tokens with a vocabulary of {data.vocabulary}"
    return f"table with columns {', '.join(data.columns)}" if data.kind == "table" else data.kind


def require_labels(vae: VAE, batch: Batch) -> None:
    """Raises VaezooError unless a batch has the labels that a conditional model is given, one for each row."""
    if "y" in conditioned_on(vae):
        check_batch_labels(vae, batch)


def check_batch_labels(vae: VAE, batch: Batch) -> None:
    """Raises VaezooError unless a batch has labels of the model's data, one for each row."""
    (y,) = given(("y",), batch)
    check_labels(vae.data, y)
    if len(y) != len(batch.x):
        raise VaezooError(f"there are {len(y)} labels for {len(batch.x)} examples", "give one for each example")


def check_labels(data: DataSpec, y: Tensor) -> None:
    """Raises VaezooError unless labels are those of the data: as many, and each below its number of classes."""
    columns = y.unsqueeze(1) if y.ndim == 1 else y
    if y.ndim > 2 or columns.shape[1] != len(data.classes):
        raise VaezooError(
            f"labels have shape {tuple(y.shape)}, but data set '{data.name}' has {len(data.classes)} per example",
            "give one value for each label",
        )
    for column, count in zip(columns.unbind(1), data.classes, strict=True):
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < count:
            wrong = next(int(value) for value in column if not 0 <= int(value) < count)
            raise VaezooError(f"unknown label {wrong}", f"the labels of '{data.name}' are 0 to {count - 1}")


def device_of(module: nn.Module) -> torch.device:
    """Returns the device of a module's parameters, or of its buffers if it has no parameters."""
    return next(chain(module.parameters(), module.buffers())).device


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Puts modules into evaluation mode and disables gradients inside the block.

    Afterwards each submodule is in the mode that it had before.
    """
    modes = {submodule: submodule.training for module in modules for submodule in module.modules()}
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for submodule, mode in modes.items():
            submodule.training = mode
