"""Error texts are short, safe to print, and suggest what was meant."""

import copy

import pytest
import torch

import vaezoo
from vaezoo.errors import (
    MAX_MESSAGE,
    MAX_REPR,
    InputError,
    PluginError,
    VaezooError,
    first_line,
    format_error,
    one_line,
    safe_repr,
    suggest,
    with_hint,
)


class HostileError(Exception):
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("bound", ["elbo", "nll"], "'bound' is now called 'elbo'"),
        ("--size", ["--image-size"], "'--size' is now called '--image-size'"),
        ("elbow", ["elbo", "nll"], "did you mean 'elbo'?"),
        ("bound", ["nll"], "use nll"),
        ("VAE", ["conv-vae", "vae-gan", "mlp-vae"], "did you mean 'mlp-vae' or 'conv-vae'?"),
        ("mse", ["bernoulli", "gaussian"], "did you mean 'gaussian'?"),
        ("mse", ["nll"], "use nll"),
    ],
)
def test_suggest_prefers_new_name(name, known, hint):
    assert suggest(name, iter(known), "use nll") == hint


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\nb\x1b[1m", "a b?[1m"),
        ("x" * 500, "x" * MAX_REPR + "..."),
        (10**5000, "a int"),
        (HostileError(), "a HostileError"),
        ([1, None], "[1, None]"),
    ],
    ids=["control", "long", "huge", "raises", "list"],
)
def test_safe_repr_is_bounded(value, expected):
    assert safe_repr(value) == expected


def test_one_line_has_no_control_characters():
    assert one_line(" a\r\n\tb\x07 ") == "a b?"


def test_format_error_is_bounded():
    assert format_error(ValueError("a\nb")) == "ValueError: a"
    assert len(format_error(ValueError("x" * 9999))) == MAX_MESSAGE
    assert format_error(HostileError()) == "HostileError"


def test_first_line_skips_blank_lines():
    assert first_line(ValueError("\n  \n  a\nb")) == "a"
    assert first_line(ValueError()) == "ValueError"


def test_with_hint_replaces_hint():
    with pytest.raises(InputError) as e, with_hint("new"):
        raise PluginError("message", "old")
    assert (e.value.message, e.value.hint) == ("message", "new")


def test_text_of_an_error_shows_its_hint():
    assert str(VaezooError("it is wrong", "change it")) == "it is wrong\nhint: change it"
    assert str(InputError("it is wrong")) == "it is wrong"
    assert format_error(VaezooError("it is wrong", "change it")) == "VaezooError: it is wrong"
    again = copy.copy(InputError("it is wrong", "change it"))  # by its arguments, as a pool of processes sends it
    assert (type(again), again.message, again.hint) == (InputError, "it is wrong", "change it")


@pytest.mark.parametrize("call", ["train", "evaluate", "export_onnx"])
@pytest.mark.parametrize("value", [torch.nn.Linear(2, 2), 5], ids=["module", "number"])
def test_modules_are_refused_with_a_hint(call, value):
    with pytest.raises(VaezooError, match=f"{call} takes .*, not a |of type .* is not a run") as e:
        getattr(vaezoo, call)(value)
    assert "vaezoo." in e.value.hint
