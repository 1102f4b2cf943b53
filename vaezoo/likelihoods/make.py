"""Builds a likelihood from its name: one of our own, or one that a package registers.

The entry-point group `vaezoo.likelihoods` names likelihoods of other packages. An entry point names a function, or a
class, of the argument and a `DataKind`; see `LikelihoodFactory`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, Protocol, cast

from vaezoo.core.entry_points import PLUGINS_ENV, Plugin, choose, find_plugins
from vaezoo.errors import PluginError, VaezooError, safe_repr, suggest
from vaezoo.likelihoods.base import Likelihood, ReconstructionScore, Shape
from vaezoo.likelihoods.bernoulli import Bernoulli
from vaezoo.likelihoods.categorical import Categorical
from vaezoo.likelihoods.continuous_bernoulli import ContinuousBernoulli
from vaezoo.likelihoods.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vaezoo.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian
from vaezoo.likelihoods.laplace import Laplace
from vaezoo.likelihoods.levels import CategoricalLevels, DiscretizedLogistic, DiscretizedLogisticMixture
from vaezoo.likelihoods.log_cosh import LogCosh
from vaezoo.likelihoods.ms_ssim import MSSSIM
from vaezoo.likelihoods.multi_stft import MultiSTFT
from vaezoo.likelihoods.table import Table
from vaezoo.likelihoods.table_modes import ModeTable

GROUP = "vaezoo.likelihoods"
BUILT_IN: Mapping[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous-bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "laplace": Laplace,
    "gaussian-identity": Gaussian,
    "laplace-identity": Laplace,
    "discretized-logistic": DiscretizedLogistic,
    "discretized-logistic-mixture": DiscretizedLogisticMixture,
    "categorical-256": CategoricalLevels,
    "categorical": Categorical,
    "table": Table,
    "poisson": Poisson,
    "nb": NegativeBinomial,
    "zinb": ZeroInflatedNegativeBinomial,
    "log-cosh": LogCosh,
    "ms-ssim": MSSSIM,
    "multi-stft": MultiSTFT,
}


class DataKind(NamedTuple):
    """What the numbers of data mean, as far as a likelihood needs it.

    Attributes:
        kind: The kind of the data; see `vaezoo.data.kinds`.
        vocabulary: Number of token ids. 0 for other data.
        columns: The columns of a table. Empty for other data.
        shape: The shape of an example. Empty if it is not known yet.
    """

    kind: str = "unit"
    vocabulary: int = 0
    columns: tuple[str, ...] = ()
    shape: Shape = ()


class LikelihoodFactory(Protocol):
    """What an entry point of the group `vaezoo.likelihoods` names: a function, or a class with such arguments."""

    def __call__(self, argument: str, data: DataKind, /) -> Likelihood:
        """Returns the likelihood.

        Args:
            argument: The text behind the colon of `name:argument`. Empty if there is none.
            data: The kind of the data.

        Raises:
            VaezooError: If the argument is wrong.
        """


def make_likelihood(
    text: str, kind: str = "unit", vocabulary: int = 0, columns: tuple[str, ...] = (), shape: Shape = ()
) -> Likelihood:
    """Builds the likelihood that `text` names.

    Args:
        text: A name in `BUILT_IN`, or the name of one that a package registers. A colon and an argument may follow.
            `gaussian` takes its sigma: `gaussian:0.1`, `gaussian:learned`, `gaussian:optimal`, or
            `gaussian:heteroscedastic`, where sigma is an output of the decoder. `gaussian` alone has sigma 1. The loss
            is then half the squared error. `laplace` takes its scale, `laplace:0.1` or `laplace:learned`,
            `discretized-logistic-mixture` its number of components, and `log-cosh` its sharpness. `gaussian-identity`
            and `laplace-identity` are for decoders that put out data in [0, 1] themselves, and no logits.
            `table:modes` has the modes of a Gaussian mixture in each real column. `poisson`, `nb` and `zinb` are for
            counts.
        kind: The kind of the data; see `vaezoo.data.kinds`.
        vocabulary: Number of token ids.
        columns: The columns of a table.
        shape: The shape of an example, for a family that has parameters for each of its values.

    Raises:
        VaezooError: If there is no such likelihood, or it is not one of such data.
        PluginError: If the likelihood of a package cannot be imported or built.
    """
    data = DataKind(kind, vocabulary, columns, shape)
    name, _, argument = text.partition(":")
    likelihood = _built_in(text, data) if name in BUILT_IN else _of_package(name, argument, data)
    if kind not in likelihood.kinds:
        families = {name: family for name, family in BUILT_IN.items() if not issubclass(family, ReconstructionScore)}
        fitting = [name for name, family in families.items() if kind in family.kinds]
        hint = f"use the likelihood {' or '.join(fitting)}" if fitting else "install a package with one for such data"
        raise VaezooError(f"likelihood '{text}' is not for data of kind {kind}", hint)
    return likelihood


def likelihood_names() -> list[str]:
    """Returns the names of all likelihoods, our own first."""
    found, _ = find_plugins(GROUP, Plugin)
    return [*BUILT_IN, *sorted({plugin.name for plugin in found if plugin.allowed} - {*BUILT_IN})]


def _built_in(text: str, data: DataKind) -> Likelihood:
    unit = data.kind == "unit"
    match text.partition(":"):
        case "bernoulli", "", "":
            return Bernoulli()
        case "continuous-bernoulli", "", "":
            return ContinuousBernoulli()
        case "categorical", "", "":
            return Categorical(data.vocabulary if data.kind == "tokens" else 2)
        case "table", "", "":
            return Table(data.columns)
        case "table", ":", "modes":
            return ModeTable(data.columns)
        case "poisson", "", "":
            return Poisson(data.shape)
        case "nb", "", "":
            return NegativeBinomial(data.shape)
        case "zinb", "", "":
            return ZeroInflatedNegativeBinomial(data.shape)
        case "gaussian", "", "":
            return Gaussian(unit=unit)
        case "gaussian", ":", "heteroscedastic":
            return HeteroscedasticGaussian(unit=unit)
        case "gaussian", ":", sigma:
            return Gaussian(_number(sigma), unit=unit)
        case "laplace", "", "":
            return Laplace(unit=unit)
        case "laplace", ":", scale:
            return Laplace(_number(scale), unit=unit)
        case ("gaussian-identity" | "laplace-identity") as name, _, argument:
            family = Gaussian if name == "gaussian-identity" else Laplace
            return family(_number(argument or "1"), unit=unit, identity=True)
        case "discretized-logistic", "", "":
            return DiscretizedLogistic()
        case "discretized-logistic-mixture", "", "":
            return DiscretizedLogisticMixture()
        case "discretized-logistic-mixture", ":", components if components.isdecimal() and len(components) < 4:
            return DiscretizedLogisticMixture(int(components))
        case "categorical-256", "", "":
            return CategoricalLevels()
        case "log-cosh", "", "":
            return LogCosh(unit=unit)
        case "log-cosh", ":", sharpness:
            return LogCosh(_number(sharpness), unit=unit)
        case "ms-ssim", "", "":
            return MSSSIM()
        case "multi-stft", "", "":
            return MultiSTFT()
    raise _unknown(text)


def _number(argument: str) -> float | str:
    """Returns the number that an argument holds, or the argument itself, which a likelihood knows or refuses."""
    with contextlib.suppress(ValueError):
        return float(argument)
    return argument


def _of_package(name: str, argument: str, data: DataKind) -> Likelihood:
    # The path and the variable are part of the key, because they decide what is found.
    plugin, factory = _find(name, os.environ.get(PLUGINS_ENV), tuple(sys.path))
    hint = f"fix, update or uninstall {plugin.distribution}"
    try:
        likelihood = factory(argument, data)
    except VaezooError:
        raise
    except Exception as e:  # third-party code may raise anything
        raise plugin.failure("built", e, hint) from e
    if not isinstance(likelihood, Likelihood):
        raise PluginError(f"{plugin} is of type {type(likelihood).__name__}, not a vaezoo.Likelihood", hint)
    return likelihood


@lru_cache(maxsize=64)
def _find(name: str, plugins: str | None, path: tuple[str, ...]) -> tuple[Plugin, LikelihoodFactory]:
    """Finds and imports the likelihood of a package. It is cached, because a model asks for it several times."""
    found, _ = find_plugins(GROUP, Plugin)
    if not any(name in (plugin.name, plugin.full_name) for plugin in found):
        raise _unknown(name)
    plugin = choose(name, found, "likelihood", "install the package that has it")
    factory = plugin.load_object()
    if not callable(factory):
        raise PluginError(f"{plugin} is not a function or a class", f"fix or update {plugin.distribution}")
    return plugin, cast("LikelihoodFactory", factory)


def _unknown(text: str) -> VaezooError:
    names = likelihood_names()
    hint = suggest(text, names, f"use one of {', '.join(names)}")
    return VaezooError(f"no likelihood named '{safe_repr(text)}'", hint)
