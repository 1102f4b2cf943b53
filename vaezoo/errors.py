"""The errors a user can cause or meet.

    VaezooError                 2   usage or configuration
    ├── UnsupportedDataError    2   the model cannot take data of this shape
    ├── InputError              3   a file, image, array or run folder that cannot be used
    │   └── PluginError         3   a third-party model that cannot be loaded or breaks its contract
    ├── ParityError             3   an exported graph that does not equal its model
    ├── DivergedError           4   training met a loss or gradient that is not finite
    └── StorageError            5   disk full, no permission, read-only

The numbers are the exit codes of the command `vaezoo`.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

MAX_REPR = 100  # characters of a name or value that errors quote
MAX_MESSAGE = 300  # characters of another's error that ours quote


class VaezooError(Exception):
    """An error that names the value at fault and the one action that mends it.

    Args:
        message: What is wrong, in one clause, naming the value.
        hint: What to do about it, in one action.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UnsupportedDataError(VaezooError):
    """A model was asked to take data of a shape that it does not support."""


class InputError(VaezooError):
    """A file or folder that the user named cannot be used."""

    exit_code = 3


class PluginError(InputError):
    """A registered model cannot be imported, is no ModelSpec, or breaks its contract."""


class ParityError(VaezooError):
    """An exported graph computes something else than the model it came from."""

    exit_code = 3


class DivergedError(VaezooError):
    """The loss or a gradient became infinite or NaN; the weights were left as they were."""

    exit_code = 4


class StorageError(VaezooError):
    """Writing failed: disk full, no permission, or a read-only place."""

    exit_code = 5


class VaezooWarning(UserWarning):
    """Something that was asked for is not done, and the work goes on without it."""


@contextlib.contextmanager
def with_hint(hint: str) -> Iterator[None]:
    """Gives the InputErrors of the block the hint that is right where it stands."""
    try:
        yield
    except InputError as e:
        raise InputError(e.message, hint) from e


def one_line(text: str) -> str:
    """Returns a text on one line without control characters, which names of files and packages may hold."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def safe_repr(value: object) -> str:
    """Returns a value that may be anybody's as our errors quote it: on one line, of bounded length."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # an integer of more than 4,300 digits has no text, and objects may refuse
        text = f"a {type(value).__name__}"
    return one_line(text if len(text) <= MAX_REPR else f"{text[:MAX_REPR]}...")


def format_error(error: BaseException) -> str:
    """Returns an error's type and the first line of its text, of whatever length a third party made it."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # its __str__ is a third party's, too
        text = type(error).__name__
    return one_line(text.splitlines()[0][:MAX_MESSAGE])


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text that says something, or its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


# Names that changed before the first release. An error about the old name tells the new one.
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


def suggest(name: str, known: Iterable[str], otherwise: str) -> str:
    """Returns the hint for an unknown name: its new name, the closest known name, or `otherwise`."""
    known = list(known)
    if RENAMED.get(name) in known:
        return f"'{name}' is now called '{RENAMED[name]}'"
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else otherwise
