"""Faulty plugins: commands that do not use one work, and commands that do fail with an error of two lines."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from vaezoo.errors import VaezooError, VaezooWarning
from vaezoo.registry import get_model, list_models
from vaezoo_cli.main import main

GOOD = "from vaezoo.models.mlp_vae import SPEC\n"
UNKNOWN = "no model named"
GROUP = "[vaezoo.models]\n"  # the section of entry_points.txt
# A model whose decode returns {result}, an expression of the correct logits y.
DECODE = """
from dataclasses import replace
from vaezoo.models import mlp_vae
def build(config, data):
    vae = mlp_vae.SPEC.build(config, data)
    decode = vae.decode
    vae.decode = lambda z: (lambda y: {result})(decode(z))
    return vae
SPEC = replace(mlp_vae.SPEC, build=build)
"""
RANDOM = "y + y.new_empty(y.shape).normal_() * 0.1"  # not allowed in an exported graph


@dataclass(frozen=True)
class Fault:
    """A faulty package.

    Attributes:
        code: The package's module.
        model: The model's name in the entry points.
        message: Part of the error for a command that uses the model.
        train: Exit code of `vaezoo train`.
        show: Exit code of `vaezoo show`.
        metadata: Contents of METADATA. Empty: a valid file. None: no file.
        entry_points: Contents of entry_points.txt, likewise.
    """

    code: str = GOOD
    model: str = "odd-vae"
    message: str = ""
    train: int = 3
    show: int = 3
    metadata: str | bytes | None = ""
    entry_points: str | bytes = ""


FAULTS = {
    "import error": Fault("import nothing_of_that_name", message="ModuleNotFoundError"),
    "old name": Fault("from vaezoo.spec import NothingOfThatName", message="ImportError"),
    "syntax error": Fault("SPEC = (", message="SyntaxError"),
    "null byte": Fault("SPEC = '\\0'\0", message="cannot be imported"),
    "exit": Fault("raise SystemExit(0)", message="SystemExit"),
    "own keyboard interrupt": Fault("raise KeyboardInterrupt", message="KeyboardInterrupt"),
    "base exception": Fault("class Odd(BaseException): pass\nraise Odd('why')", message="Odd: why"),
    "exception without text": Fault(
        "class Odd(Exception):\n  def __str__(self): raise ValueError\nraise Odd", message="imported: Odd"
    ),
    "long message": Fault("raise ValueError('x' * 10**7)", message="ValueError: xxx"),
    "deep recursion": Fault("def f(): f()\nf()", message="RecursionError"),
    "print": Fault("print('printed')\n" + GOOD, train=0, show=0),
    "no spec": Fault("SPEC = 3", message="is of type int, not a ModelSpec"),
    "no attribute": Fault("", message="AttributeError"),
    "another API": Fault("from vaezoo import ModelSpec\nSPEC = ModelSpec(make=print)", message="unexpected keyword"),
    "config not a dataclass": Fault(
        "from vaezoo import ModelSpec\nSPEC = ModelSpec(config={}, build=print, summary='', reference='')",
        message="not an instance of a dataclass",
    ),
    "build returns nothing": Fault(
        "import dataclasses\n" + GOOD + "SPEC = dataclasses.replace(SPEC, build=lambda config, data: None)",
        message="returns a NoneType instead of a VAE",
    ),
    "build fails": Fault(
        "import dataclasses\n" + GOOD + "SPEC = dataclasses.replace(SPEC, build=lambda config, data: 1 / 0)",
        message="ZeroDivisionError",
    ),
    "wrong shape": Fault(DECODE.format(result="y[:, :-1]"), message="cannot be trained: RuntimeError", show=0),
    "not a tensor": Fault(DECODE.format(result="None"), message="cannot be trained", show=0),
    "not a number": Fault(DECODE.format(result="y * float('nan')"), message="not finite", train=4, show=0),
    "not exportable": Fault(DECODE.format(result=RANDOM), train=0, show=0),
    "stale metadata": Fault(entry_points=GROUP + "odd-vae = zoo_gone:SPEC\n", message="No module named 'zoo_gone'"),
    "no value": Fault(entry_points=GROUP + "odd-vae =\n", message="cannot be imported"),
    "missing dist": Fault(metadata=None, message="not allowed"),
    "binary metadata": Fault(metadata=b"\xff\xfe\x00", message=UNKNOWN, train=2, show=2),
    "entry points without value": Fault(entry_points=GROUP + "odd-vae\n", message=UNKNOWN, train=2, show=2),
    "binary entry points": Fault(entry_points=b"[vaezoo.models]\n\xff = a:b\n", message=UNKNOWN, train=2, show=2),
    "name of a built-in": Fault("raise ValueError", "mlp-vae", train=0, show=0),
    "long name": Fault(model="a" * 10**7, message="not allowed"),
    "slash": Fault(model="a/b", message="not allowed"),
    "dots": Fault(model="../../etc", message="not allowed"),
    "newline": Fault(entry_points=GROUP + "a\x1b[31m\x85b = zoo_odd:SPEC\n", message=UNKNOWN, train=2, show=2),
    "script": Fault(model="<script>alert(1)</script>", message="not allowed"),
    "control": Fault(model="\x1b]0;title\x07", message="not allowed"),
    "package name": Fault(metadata="Name: <b>\x1b[2J\nVersion: 1\n", message="not allowed"),
    "version": Fault(metadata="Name: zoo-odd\nVersion: \x1b[2J\n", train=0, show=0),
}  # fmt: skip


@pytest.fixture
def install_fault(install):
    """Returns a function that installs a faulty package."""

    def install_fault(fault):
        info = install("zoo-odd", fault.model, fault.code)
        for name, content in (("METADATA", fault.metadata), ("entry_points.txt", fault.entry_points)):
            if content is None:
                (info / name).unlink()
            elif content:
                (info / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return install_fault


@pytest.fixture
def vaezoo(capsys, inside):
    """Returns a function that runs a command in this process.

    It returns the exit code, stdout, the warnings and stderr.
    """
    np.save("data.npy", np.random.default_rng(0).random((40, 9), np.float32))

    def vaezoo(*arguments):
        with pytest.raises(SystemExit) as e:
            main(list(arguments))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert "\x1b" not in captured.out + captured.err
        lines = captured.err.splitlines()
        assert max(map(len, lines), default=0) < 1000
        warnings = [line for line in lines if line.startswith("vaezoo: warning: ")]
        return e.value.code, captured.out, warnings, captured.err

    return vaezoo


TRAIN = ("--steps", "1", "--batch-size", "8", "--data", "data.npy", "--json")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_other_commands_work(install_fault, vaezoo, fault):
    install_fault(fault)
    for command in (("list",), ("--help",), ("train", "mlp-vae", *TRAIN)):
        code, out, warnings, err = vaezoo(*command)
        assert code == 0, err
        assert len(warnings) <= 1 and "printed" not in out
        if command == ("list",):
            assert "beta-vae" in out and bool(warnings) == (fault.message in ("not allowed", UNKNOWN))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_error_names_cause(install_fault, vaezoo, fault):
    install_fault(fault)
    for command, expected in (("train", fault.train), ("show", fault.show)):
        code, out, _, err = vaezoo(command, fault.model, *(TRAIN if command == "train" else ()))
        assert code == expected, err
        assert "printed" not in out
        if code:
            *_, error, hint = err.splitlines()
            assert error.startswith("vaezoo: error: ") and hint.startswith("hint: ") and fault.message in error


HANG = "import sys, time; print('hanging', file=sys.stderr, flush=True); time.sleep(600)"


# Runs commands that are separated by --, one after the other, and prints their exit codes.
RUN_COMMANDS = """
import itertools, sys
from vaezoo_cli.main import main
for separator, arguments in itertools.groupby(sys.argv[1:], '--'.__eq__):
    if not separator:
        try:
            main(list(arguments))
        except SystemExit as e:
            print('code', e.code)
"""


@pytest.fixture
def start_process(install, inside, monkeypatch):
    """Returns a function that installs a package with `code` and starts commands in a subprocess."""

    def start_process(code, *arguments):
        site = install("zoo-odd", "odd-vae", code).parent
        monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        np.save("data.npy", np.random.default_rng(0).random((40, 9), np.float32))
        command = [sys.executable, "-c", RUN_COMMANDS, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start_process


@pytest.mark.slow
@pytest.mark.parametrize("code", ["import os; os._exit(7)", HANG], ids=["exit", "hang"])
def test_unused_package_is_not_imported(start_process, code):
    process = start_process(code, "list", "--", "--help", "--", "train", "mlp-vae", *TRAIN)
    out, err = process.communicate(timeout=600)
    assert out.count("code 0") == 3 and "odd-vae" in out and "hanging" not in err, err


@pytest.mark.slow
def test_hanging_import_can_be_interrupted(start_process):
    process = start_process(HANG, "train", "odd-vae", *TRAIN)
    assert process.stderr.readline() == "hanging\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert "code 130" in out and err.startswith("vaezoo: error: interrupted\nhint: "), err


def test_user_interrupt_is_not_swallowed(install):
    """The signal arrives during the import, and the package replaces KeyboardInterrupt by its own error."""
    code = (
        "import signal\ntry: signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: raise ValueError from None"
    )
    install("zoo-odd", "odd-vae", code)
    with pytest.raises(KeyboardInterrupt):
        get_model("odd-vae")


def test_ambiguous_name_affects_only_itself(install, vaezoo):
    install("zoo-a", "twin-vae")
    install("zoo-b", "twin-vae")
    code, out, warnings, _ = vaezoo("list")
    assert code == 0 and "zoo-a/twin-vae" in out and "zoo-b/twin-vae" in out and not warnings
    for command in (("show", "twin-vae"), ("train", "twin-vae", *TRAIN)):
        code, _, _, err = vaezoo(*command)
        assert code == 3 and "zoo-a/twin-vae" in err
    assert vaezoo("train", "mlp-vae", *TRAIN)[0] == 0


@pytest.mark.slow
def test_unexportable_model_is_reported(install_fault, vaezoo):
    install_fault(FAULTS["not exportable"])
    assert vaezoo("train", "odd-vae", *TRAIN, "--out", "run")[0] == 0
    code, _, _, err = vaezoo("export", "run", "--onnx")
    assert code == 3 and len(err.splitlines()) == 2, err


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, {"one-vae", "two-vae"}),
        ("", set()),
        ("Zoo_One", {"one-vae"}),
        ("zoo.one, ZOO--two", {"one-vae", "two-vae"}),
        ("nothing", set()),
    ],
)
def test_packages_can_be_selected(install, monkeypatch, value, names):
    install("zoo-one", "one-vae")
    install("zoo-two", "two-vae")
    if value is not None:
        monkeypatch.setenv("VAEZOO_PLUGINS", value)
    models = list_models()
    assert {r.name for r in models if not r.built_in} == names
    assert {"mlp-vae", "conv-vae", "beta-vae", "vae-gan", "autoencoder"} <= {r.name for r in models if r.built_in}


def test_missing_selected_package_warns(install, monkeypatch):
    install("zoo-one", "one-vae")
    monkeypatch.setenv("VAEZOO_PLUGINS", "zoo-one, Zoo.Too")
    with pytest.warns(VaezooWarning, match=r"^VAEZOO_PLUGINS names 'zoo-too', but no installed") as warned:
        assert "one-vae" in {r.name for r in list_models()}
    assert len(warned) == 1
    install("zoo-two", "two-vae")
    with pytest.raises(VaezooError) as error:
        get_model("two-vae")
    assert "VAEZOO_PLUGINS leaves out the packages that it does not name" in error.value.hint


def test_empty_selection_silences_warnings(install_fault, vaezoo, monkeypatch):
    monkeypatch.setenv("VAEZOO_PLUGINS", "")
    install_fault(FAULTS["binary entry points"])
    code, out, warnings, _ = vaezoo("list")
    assert code == 0 and "odd" not in out and not warnings
