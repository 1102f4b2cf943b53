"""The registry, with fake installed packages: broken, of the same name, with malformed names."""

import sys

import pytest

import vaezoo
from vaezoo import DataSpec, TrainConfig
from vaezoo.description import Description
from vaezoo.errors import PluginError, UnsupportedDataError, VaezooError
from vaezoo.registry import create_model, find_model, get_model, list_models

GOOD = "from vaezoo.models.mlp_vae import SPEC"


def test_built_ins_are_registered():
    assert {"mlp-vae", "conv-vae", "beta-vae", "vae-gan", "autoencoder"} <= {
        r.name for r in list_models() if r.distribution == "vaezoo"
    }


def test_listing_imports_nothing(install):
    install("zoo-extra", "extra-vae", "print('imported')\n" + GOOD)
    listed = next(r for r in list_models() if r.name == "extra-vae")
    assert (listed.distribution, listed.version, listed.full_name) == ("zoo-extra", "1.2", "zoo-extra/extra-vae")
    assert listed.describe() == find_model("mlp-vae").describe()
    assert "zoo_extra" not in sys.modules
    assert get_model("zoo-extra/extra-vae").summary


def test_descriptions_equal_the_specs():
    built_ins = [r for r in list_models() if r.built_in]
    for registration in built_ins:
        spec = registration.load()
        expected = Description(spec.summary, spec.reference, **spec.part_names())
        assert registration.describe() == expected and all(expected), registration.name


PART = """
from dataclasses import dataclass
import vaezoo
from vaezoo import PosteriorPart
from vaezoo.composition import MLPParts, composed

class Base(PosteriorPart):
    part = "ours"

@dataclass(frozen=True, kw_only=True)
class Part(Base):
    size: int = 3

@dataclass(frozen=True, kw_only=True)
class Parts(MLPParts):
    posterior: object = Part()
"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (PART + "SPEC = composed(Parts(), summary='A', reference='B')", ("A", "B", "ours", "normal", "elbo")),
        (PART + "SPEC = vaezoo.composition.composed(MLPParts(), 'A', 'B')", ("Ours", "", "diagonal", "normal", "elbo")),
        ("SPEC: object = ModelSpec(config=Config(), summary='A' 'b', reference=PAPER)", ("Ab", "", "", "", "elbo")),
        (
            "SPEC = ModelSpec(config=Config(), objective=f, summary='A', parts={'prior': 'p', 'x': 'y', **other})",
            ("A", "", "", "p", ""),
        ),
        (r"SPEC = make(summary='\x1b[31mA\nB')", ("?[31mA B", "", "", "", "")),
        ("SPEC = (", ("Ours", "", "", "", "")),
        ("SPEC = 3", ("Ours", "", "", "", "")),
        ("", ("Ours", "", "", "", "")),
        ("from .nowhere import SPEC", ("Ours", "", "", "", "")),
        ("from zoo_read import SPEC", ("Ours", "", "", "", "")),
        ("\0", ("Ours", "", "", "", "")),
    ],
)
def test_descriptions_are_read_from_the_source(install, code, expected):
    install("zoo-read", "read-vae", code)
    found = next(r for r in list_models() if r.name == "read-vae").describe()
    assert found == expected
    assert "zoo_read" not in sys.modules


def test_descriptions_follow_imports(install):
    """The entry point names a package that imports its ModelSpec from another module. None of them is imported."""
    site = install("zoo-deep", "deep-vae", "from zoo_inner.models import OURS as SPEC").parent
    (site / "zoo_inner" / "models").mkdir(parents=True)
    (site / "zoo_inner" / "__init__.py").write_text("raise ValueError('imported')")
    (site / "zoo_inner" / "models" / "__init__.py").write_text("from .leaf import OURS")
    (site / "zoo_inner" / "parts.py").write_text("class Part:\n    part: str = 'deep'")
    (site / "zoo_inner" / "models" / "leaf.py").write_text(
        "from ..parts import Part as P\nOURS = ModelSpec(config=Config(prior=P()), summary='Deep', reference='B')"
    )
    found = next(r for r in list_models() if r.name == "deep-vae").describe()
    assert found == ("Deep", "B", "", "deep", "elbo")
    assert not {"zoo_deep", "zoo_inner"} & {*sys.modules}


def test_plugin_output_goes_to_stderr(install, capsys):
    install("zoo-loud", "loud-vae", "print('hello')\n" + GOOD)
    get_model("loud-vae")
    captured = capsys.readouterr()
    assert captured.out == "" and "hello" in captured.err


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("SPEC = (", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("raise ValueError('first\\nsecond')", "ValueError: first"),
        ("OTHER = 1", "AttributeError"),
        ("SPEC = 3", "not a ModelSpec"),
    ],
)
def test_broken_plugin_fails_when_used(install, code, reason):
    install("zoo-broken", "broken-vae", code)
    assert any(r.name == "broken-vae" for r in list_models())
    get_model("mlp-vae")
    with pytest.raises(PluginError) as e:
        get_model("broken-vae")
    assert reason in e.value.message and "zoo-broken 1.2" in e.value.message and "\n" not in e.value.message


def test_ambiguous_name_needs_full_name(install):
    install("zoo-a", "twin-vae")
    install("zoo-b", "twin-vae")
    with pytest.raises(PluginError) as e:
        get_model("twin-vae")
    assert "zoo-a/twin-vae" in e.value.message and "zoo-b/twin-vae" in e.value.message
    assert find_model("zoo-b/twin-vae").distribution == "zoo-b"


def test_built_in_cannot_be_overridden(install):
    install("zoo-thief", "mlp-vae", "SPEC = None")
    assert find_model("mlp-vae").distribution == "vaezoo"


def test_malformed_name_is_refused(install):
    install("zoo-odd", "<script>")
    with pytest.raises(PluginError, match="not allowed"):
        get_model("<script>")


def test_misspelt_name_suggests_nearest():
    with pytest.raises(VaezooError) as e:
        get_model("beta_vae")
    assert (e.value.message, e.value.hint) == ("no model named 'beta_vae'", "did you mean 'beta-vae'?")


def test_failing_build_names_model(install):
    code = GOOD + "\nimport dataclasses\nSPEC = dataclasses.replace(SPEC, build=lambda config, data: 1 / 0)"
    install("zoo-failing", "failing-vae", code)
    with pytest.raises(PluginError) as e:
        create_model("failing-vae", DataSpec(name="x", shape=(3,)))
    assert "model 'failing-vae' of zoo-failing 1.2 cannot be built: ZeroDivisionError" in e.value.message
    assert "vaezoo check zoo-failing/failing-vae" in e.value.hint


def test_error_of_a_plugin_names_it(install):
    code = GOOD + (
        "\nimport dataclasses\nfrom vaezoo import VaezooError, UnsupportedDataError\n"
        "def build(config, data):\n    raise UnsupportedDataError('only squares')\n"
        "SPEC = dataclasses.replace(SPEC, build=build)"
    )
    install("zoo-picky", "picky-vae", code)
    with pytest.raises(UnsupportedDataError) as e:
        create_model("picky-vae", DataSpec(name="x", shape=(3,)))
    assert str(e.value) == "model 'picky-vae' of zoo-picky 1.2: only squares"


def test_failing_inference_names_model(install, tmp_path, digits):
    install("zoo-late", "late-vae", GOOD)
    run = vaezoo.train("late-vae", digits, config=TrainConfig(steps=1, batch_size=50), out=tmp_path / "run")
    run.vae.likelihood.mean = lambda params: 1 / 0
    with pytest.raises(PluginError, match=r"model 'late-vae' of zoo-late 1\.2 cannot be evaluated: ZeroDivisionError"):
        vaezoo.evaluate(run, digits, metrics=["reconstructions"])


def test_missing_package_is_named():
    with pytest.raises(VaezooError) as e:
        find_model("zoo-absent/some-vae")
    assert e.value.hint == "install the package zoo-absent"


def test_create_model_sets_options(digits):
    assert create_model("conv-vae", digits.spec, {"latent_dim": 5}).latent_shape == (5,)
