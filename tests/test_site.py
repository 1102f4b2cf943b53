"""The documentation site: pages that are made from the code, and the build without executed examples."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

import vaezoo
from scripts import site_models
from scripts.site_models import ROOT, formula_of, linked, model_page, options, parts
from scripts.site_reference import PAGES, public_names
from vaezoo.core.option_values import PartOf
from vaezoo.description import PARTS
from vaezoo.registry import find_model

MODELS = [model for model in vaezoo.list_models() if model.built_in]
KINDS = (*PARTS, "quantizer")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_has_formulas_options_and_a_reference(model):
    spec = model.load()
    found = dict(parts(spec))
    assert {*PARTS} <= {*found}
    assert all(formula_of(spec, kind, name) for kind, name in found.items()), found
    assert re.search(r"\d{4}", spec.reference)
    assert all(line.rsplit("|", 2)[1].strip() for line in options(spec).splitlines()), "an option has no help text"


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_has_a_formula_that_becomes_mathml(kind):
    converter = pytest.importorskip("latex2mathml.converter")
    group = PartOf(f"vaezoo.{kind}s")
    formulas = {name: group.load(name).formula for name in group.choices()}
    formulas |= {model.name: model.load().formulas.get(kind, "x") for model in MODELS}
    assert all(formulas.values())
    assert {name for name, text in formulas.items() if "\\" in converter.convert(text)} == set()


def test_page_of_a_model():
    page = model_page(find_model("iwae"))
    assert page.startswith("# iwae\n\nThe bound of 50 importance samples")
    assert "[arXiv 1509.00519](https://arxiv.org/abs/1509.00519)" in page and r"\log \frac{1}{k} \sum" in page
    assert "| `objective.k` | 50 | an integer | Number of samples in a bound. |" in page
    assert "| `burda-1l-iwae-50` | mnist | nll | 84.78 |" in page
    assert "| `decoder.onnx` | `z` |" in page and "(../models.md#iwae-miwae-piwae-and-ciwae)" in page


def test_page_shows_the_explorer_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(site_models, "EXPLORERS", tmp_path)
    assert "vaezoo explore beta-vae --serve" in site_models.explorer("beta-vae")
    (tmp_path / "beta-vae").mkdir()
    (tmp_path / "beta-vae" / "index.html").touch()
    assert 'src="../../explorers/beta-vae/index.html"' in site_models.explorer("beta-vae")


def test_sections_about_models_exist():
    anchors = {name: site_models.described_at(name).partition("#")[2] for name in ("wae", "hvae", "miwae", "vamp-vae")}
    assert anchors == {
        "wae": "info-vae-and-wae",
        "hvae": "hvae",
        "miwae": "iwae-miwae-piwae-and-ciwae",
        "vamp-vae": "composed-models-with-a-name",
    }


def test_references_become_links():
    assert linked("A 2019, arXiv 1901.06033; B") == "A 2019, [arXiv 1901.06033](https://arxiv.org/abs/1901.06033); B"


def test_every_public_name_is_on_one_page():
    shown = [name for _, packages in PAGES.values() for name in public_names(packages)]
    expected = {f"vaezoo.{name}" for name in vaezoo.__all__} - {"vaezoo.runtime"}  # that has a page of its own
    assert sorted(shown) == sorted(expected)


def test_every_page_is_in_the_side_bar():
    contents = (ROOT / "docs" / "conf.py").read_text("utf-8")
    pages = [f"docs/{page.stem}" for page in (ROOT / "docs").glob("*.md")]
    assert [page for page in pages if f'"{page}"' not in contents] == []


@pytest.mark.slow
@pytest.mark.skipif(find_spec("sphinx") is None, reason="the group docs is not installed")
def test_site_builds_without_warnings(tmp_path):
    options = ["--fail-on-warning", "--keep-going", "--quiet", "-d", tmp_path / "doctrees", "-c", "docs"]
    result = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ".", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "VAEZOO_EXECUTE": "off"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    site = tmp_path / "site"
    page = (site / "docs" / "models" / "beta-vae.html").read_text("utf-8")
    assert "<math" in page and "objective" in page and (site / "index.html").exists()
    pages = "".join(file.read_text("utf-8") for file in site.rglob("*.html"))
    assert re.findall(r'<(?:script|img|iframe|link)[^>]*(?:src|href)="(?:https?:)?//[^"]*"', pages) == []
