"""A third party's package may fail in any way: what does not use it goes on, what does tells why in two lines."""

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
# A model whose decode returns {what}, which may name the logits that would be right, y.
ODD = """
from dataclasses import replace
from vaezoo.models import mlp_vae
def build(config, data):
    vae = mlp_vae.SPEC.build(config, data)
    right = vae.decode
    vae.decode = lambda z: (lambda y: {what})(right(z))
    return vae
SPEC = replace(mlp_vae.SPEC, build=build)
"""
RANDOM = "y + y.new_empty(y.shape).normal_() * 0.1"  # which no graph may hold


@dataclass(frozen=True)
class Kind:
    """A way to fail.

    Attributes:
        code: The package's module.
        model: The model's name in the entry points.
        says: What the error says when the model is asked for.
        train: The exit code of its training, and `show` that of `vaezoo show`.
        metadata: The METADATA file, where it is not as it should be; None: there is none.
        points: The entry_points.txt, likewise.
    """

    code: str = GOOD
    model: str = "odd-vae"
    says: str = ""
    train: int = 3
    show: int = 3
    metadata: str | bytes | None = ""
    points: str | bytes = ""


KINDS = {
    "import error": Kind("import nothing_of_that_name", says="ModuleNotFoundError"),
    "old name": Kind("from vaezoo.spec import NothingOfThatName", says="ImportError"),
    "syntax error": Kind("SPEC = (", says="SyntaxError"),
    "null byte": Kind("SPEC = '\\0'\0", says="cannot be imported"),
    "exit": Kind("raise SystemExit(0)", says="SystemExit"),
    "interrupt of its own": Kind("raise KeyboardInterrupt", says="KeyboardInterrupt"),
    "base exception": Kind("class Odd(BaseException): pass\nraise Odd('why')", says="Odd: why"),
    "error that cannot be shown": Kind(
        "class Odd(Exception):\n  def __str__(self): raise ValueError\nraise Odd", says="imported: Odd"
    ),
    "long message": Kind("raise ValueError('x' * 10**7)", says="ValueError: xxx"),
    "deep recursion": Kind("def f(): f()\nf()", says="RecursionError"),
    "print": Kind("print('printed')\n" + GOOD, train=0, show=0),
    "no spec": Kind("SPEC = 3", says="is a int, no ModelSpec"),
    "no attribute": Kind("", says="AttributeError"),
    "another API": Kind("from vaezoo import ModelSpec\nSPEC = ModelSpec(make=print)", says="unexpected keyword"),
    "config of another kind": Kind(
        "from vaezoo import ModelSpec\nSPEC = ModelSpec(config={}, build=print, summary='', reference='')",
        says="no instance of a dataclass",
    ),
    "build returns nothing": Kind(
        "import dataclasses\n" + GOOD + "SPEC = dataclasses.replace(SPEC, build=lambda config, data: None)",
        says="makes a NoneType where a VAE belongs",
    ),
    "build fails": Kind(
        "import dataclasses\n" + GOOD + "SPEC = dataclasses.replace(SPEC, build=lambda config, data: 1 / 0)",
        says="ZeroDivisionError",
    ),
    "wrong shape": Kind(ODD.format(what="y[:, :-1]"), says="cannot be trained: ValueError", show=0),
    "not a tensor": Kind(ODD.format(what="None"), says="cannot be trained", show=0),
    "not a number": Kind(ODD.format(what="y * float('nan')"), says="not finite", train=4, show=0),
    "not exportable": Kind(ODD.format(what=RANDOM), train=0, show=0),
    "stale metadata": Kind(points="[vaezoo.models]\nodd-vae = zoo_gone:SPEC\n", says="No module named 'zoo_gone'"),
    "no value": Kind(points="[vaezoo.models]\nodd-vae =\n", says="cannot be imported"),
    "missing dist": Kind(metadata=None, says="not allowed"),
    "metadata of bytes": Kind(metadata=b"\xff\xfe\x00", says="no model named", train=2, show=2),
    "points without a value": Kind(points="[vaezoo.models]\nodd-vae\n", says="no model named", train=2, show=2),
    "points of bytes": Kind(points=b"[vaezoo.models]\n\xff = a:b\n", says="no model named", train=2, show=2),
    "name of a built-in": Kind("raise ValueError", "mlp-vae", train=0, show=0),
    "long name": Kind(model="a" * 10**7, says="not allowed"),
    "slash": Kind(model="a/b", says="not allowed"),
    "dots": Kind(model="../../etc", says="not allowed"),
    "newline": Kind(points="[vaezoo.models]\na\x1b[31m\x85b = zoo_odd:SPEC\n", says="no model named", train=2, show=2),
    "script": Kind(model="<script>alert(1)</script>", says="not allowed"),
    "control": Kind(model="\x1b]0;title\x07", says="not allowed"),
    "package name": Kind(metadata="Name: <b>\x1b[2J\nVersion: 1\n", says="not allowed"),
    "version": Kind(metadata="Name: zoo-odd\nVersion: \x1b[2J\n", train=0, show=0),
}  # fmt: skip


@pytest.fixture
def plant(install):
    """Returns a function that installs a package that fails in one way."""

    def plant(kind):
        info = install("zoo-odd", kind.model, kind.code)
        for name, content in (("METADATA", kind.metadata), ("entry_points.txt", kind.points)):
            if content is None:
                (info / name).unlink()
            elif content:
                (info / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return plant


@pytest.fixture
def vaezoo(capsys, inside):
    """Returns a function that runs a command line in this process: exit code, stdout, warnings, error lines."""
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


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_does_not_use_a_package_goes_on(plant, vaezoo, kind):
    plant(kind)
    for command in (("list",), ("--help",), ("train", "mlp-vae", *TRAIN)):
        code, out, warnings, err = vaezoo(*command)
        assert code == 0, err
        assert len(warnings) <= 1 and "printed" not in out
        if command == ("list",):
            assert "beta-vae" in out and bool(warnings) == (kind.says in ("not allowed", "no model named"))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_uses_it_tells_why(plant, vaezoo, kind):
    plant(kind)
    for command, expected in (("train", kind.train), ("show", kind.show)):
        code, out, _, err = vaezoo(command, kind.model, *(TRAIN if command == "train" else ()))
        assert code == expected, err
        assert "printed" not in out
        if code:
            *_, error, hint = err.splitlines()
            assert error.startswith("vaezoo: error: ") and hint.startswith("hint: ") and kind.says in error


HANG = "import sys, time; print('hanging', file=sys.stderr, flush=True); time.sleep(600)"


# Runs command lines, separated by --, one after the other, and prints their exit codes.
SEVERAL = """
import itertools, sys
from vaezoo_cli.main import main
for separator, words in itertools.groupby(sys.argv[1:], '--'.__eq__):
    if not separator:
        try:
            main(list(words))
        except SystemExit as e:
            print('code', e.code)
"""


@pytest.fixture
def process(install, inside, monkeypatch):
    """Returns a function that installs a package with `code` and starts command lines in a process of their own."""

    def process(code, *arguments):
        site = install("zoo-odd", "odd-vae", code).parent
        monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        np.save("data.npy", np.random.default_rng(0).random((40, 9), np.float32))
        command = [sys.executable, "-c", SEVERAL, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return process


@pytest.mark.parametrize("code", ["import os; os._exit(7)", HANG], ids=["exit", "hang"])
def test_a_package_that_ends_or_stops_the_process_is_not_imported_unasked(process, code):
    started = process(code, "list", "--", "--help", "--", "train", "mlp-vae", *TRAIN)
    out, err = started.communicate(timeout=120)
    assert out.count("code 0") == 3 and "odd-vae" in out and "hanging" not in err, err


def test_a_hanging_import_can_be_interrupted(process):
    started = process(HANG, "train", "odd-vae", *TRAIN)
    assert started.stderr.readline() == "hanging\n"
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=120)
    assert "code 130" in out and err.startswith("vaezoo: error: interrupted\nhint: "), err


def test_an_interrupt_that_a_package_turns_into_its_own_error_is_the_user_s(install):
    """The signal arrives within the import, and the package makes something else of it."""
    code = (
        "import signal\ntry: signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: raise ValueError from None"
    )
    install("zoo-odd", "odd-vae", code)
    with pytest.raises(KeyboardInterrupt):
        get_model("odd-vae")


def test_two_packages_of_one_model_stop_nobody_else(install, vaezoo):
    install("zoo-a", "twin-vae")
    install("zoo-b", "twin-vae")
    code, out, warnings, _ = vaezoo("list")
    assert code == 0 and "zoo-a/twin-vae" in out and "zoo-b/twin-vae" in out and not warnings
    for command in (("show", "twin-vae"), ("train", "twin-vae", *TRAIN)):
        code, _, _, err = vaezoo(*command)
        assert code == 3 and "zoo-a/twin-vae" in err
    assert vaezoo("train", "mlp-vae", *TRAIN)[0] == 0


def test_a_model_that_cannot_be_exported_says_so(plant, vaezoo):
    plant(KINDS["not exportable"])
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
def test_the_packages_can_be_chosen(install, monkeypatch, value, names):
    install("zoo-one", "one-vae")
    install("zoo-two", "two-vae")
    if value is not None:
        monkeypatch.setenv("VAEZOO_PLUGINS", value)
    found = list_models()
    assert {r.name for r in found if not r.built_in} == names
    assert {"mlp-vae", "conv-vae", "beta-vae", "vae-gan", "autoencoder"} == {r.name for r in found if r.built_in}


def test_a_chosen_package_that_is_not_there_is_told(install, monkeypatch):
    install("zoo-one", "one-vae")
    monkeypatch.setenv("VAEZOO_PLUGINS", "zoo-one, Zoo.Too")
    with pytest.warns(VaezooWarning, match=r"^VAEZOO_PLUGINS names 'zoo-too', and no installed") as told:
        assert "one-vae" in {r.name for r in list_models()}
    assert len(told) == 1
    install("zoo-two", "two-vae")
    with pytest.raises(VaezooError) as error:
        get_model("two-vae")
    assert "VAEZOO_PLUGINS leaves out the packages that it does not name" in error.value.hint


def test_choosing_none_silences_their_warnings(plant, vaezoo, monkeypatch):
    monkeypatch.setenv("VAEZOO_PLUGINS", "")
    plant(KINDS["points of bytes"])
    code, out, warnings, _ = vaezoo("list")
    assert code == 0 and "odd" not in out and not warnings
