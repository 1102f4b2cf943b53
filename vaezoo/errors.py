"""The errors that vaezoo raises for users.

    VaezooError                 2   usage or configuration
    ├── UnsupportedDataError    2   a model that does not support data of this shape
    ├── InputError              3   a file, image, array or run folder that cannot be used
    │   └── PluginError         3   a third-party model that cannot be loaded or breaks its contract
    ├── ParityError             3   an exported graph whose output differs from the model's
    ├── DivergedError           4   a loss, metric, gradient or buffer that is not finite
    └── StorageError            5   disk full, no permission, read-only

The numbers are the exit codes of the command `vaezoo`.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

MAX_REPR = 100  # characters of a name or value that an error message quotes
MAX_MESSAGE = 300  # characters of another library's message that an error message quotes


class VaezooError(Exception):
    """An error with a message that names the wrong value and a hint that fixes it.

    As text it is the message, and a second line with the hint.

    Args:
        message: What is wrong, in one clause that names the value.
        hint: One action that fixes it. Plugins may leave it out.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # the arguments, so that an error can be pickled
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UnsupportedDataError(VaezooError):
    """The model does not support data of this shape."""


class InputError(VaezooError):
    """A file or folder from the user cannot be used."""

    exit_code = 3


class PluginError(InputError):
    """A registered model cannot be imported, is not a ModelSpec, or breaks its contract."""


class ParityError(VaezooError):
    """The output of an exported graph differs from that of its model."""

    exit_code = 3


class DivergedError(VaezooError):
    """A loss, metric, gradient or buffer is not finite. The training step that raises this changes no weights."""

    exit_code = 4


class StorageError(VaezooError):
    """Writing failed: the disk is full, permission is missing, or the place is read-only."""

    exit_code = 5


class VaezooWarning(UserWarning):
    """Something requested was not done, and the work continues without it."""


@contextlib.contextmanager
def with_hint(hint: str) -> Iterator[None]:
    """Replaces the hint of any InputError that the block raises."""
    try:
        yield
    except InputError as e:
        raise InputError(e.message, hint) from e


def one_line(text: str) -> str:
    """Returns a text on one line, with control characters replaced by `?`.

    File names and package names may contain control characters.
    """
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def safe_repr(value: object) -> str:
    """Returns an untrusted value as error messages quote it: on one line, of bounded length."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # an integer of more than 4,300 digits has no text, and a foreign __repr__ may raise
        text = f"a {type(value).__name__}"
    return one_line(text if len(text) <= MAX_REPR else f"{text[:MAX_REPR]}...")


def format_error(error: BaseException) -> str:
    """Returns an error's type and the first line of its message, shortened to `MAX_MESSAGE` characters."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # a foreign __str__ may raise
        text = type(error).__name__
    return one_line(text.splitlines()[0][:MAX_MESSAGE])


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message that is not blank, or the error's type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


# Old name -> new name. All changed before the first release; an error about an old name suggests the new one.
RENAMED = {
    "bound": "elbo",
    "codes": "probe",
    "factors": "disentanglement",
    "samples": "nearest-neighbour",
    "frechet": "fid",
    "concept": "attribute-vector",
    "scatter": "latents",
    "curves": "learning-curves",
    "kernel": "kernel_size",
    "ema": "ema_decay",
    "grad_accum": "grad_accum_steps",
    "size": "image_size",
    "--ema": "--ema-decay",
    "--grad-accum": "--grad-accum-steps",
    "--size": "--image-size",
    "--draws": "--elbo-samples",
    "--examples": "--limit",
}


# A name that users know from other programs -> what it is called here. The spelling of the two has little in common.
MEANT = {
    "vae": ("mlp-vae", "conv-vae"),
    "cnn-vae": ("conv-vae",),
    "convolutional-vae": ("conv-vae",),
    "vqvae": ("vq-vae",),
    "vqvae2": ("vq-vae-2",),
    "fsq": ("fsq-vae",),
    "lfq": ("lfq-vae",),
    "rvq": ("residual-vq-vae",),
    "rq-vae": ("residual-vq-vae",),
    "vaegan": ("vae-gan",),
    "ae": ("autoencoder",),
    "ldm": ("autoencoder-kl",),
    "vqgan": ("vq-autoencoder",),
    "dc-ae": ("autoencoder-dc",),
    "mse": ("gaussian",),
    "l2": ("gaussian",),
    "normal": ("gaussian",),
    "bce": ("bernoulli",),
    "binary-cross-entropy": ("bernoulli",),
    "ce": ("categorical",),
    "cross-entropy": ("categorical",),
    "loss": ("elbo",),
    "test": ("eval",),
    "generate": ("sample",),
    "learning-rate": ("lr",),
}


def suggest(name: str, known: Iterable[str], otherwise: str) -> str:
    """Returns the hint for an unknown name: what it is called here, the closest known name, or `otherwise`."""
    known = list(known)
    if RENAMED.get(name) in known:
        return f"'{name}' is now called '{RENAMED[name]}'"
    meant = [n for n in MEANT.get(name.lower().replace("_", "-"), ()) if n in known]
    close = meant or difflib.get_close_matches(name, known, n=1)
    return f"did you mean {' or '.join(repr(n) for n in close)}?" if close else otherwise
