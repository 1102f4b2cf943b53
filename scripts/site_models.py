"""The pages of the models on the site, from the registry. `make docs` writes them to docs/models/."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import vaezoo
from vaezoo.core.option_values import PartOf, show_value
from vaezoo.core.options import options_of
from vaezoo.description import PARTS
from vaezoo.recipes import Recipe
from vaezoo.registry import Registration
from vaezoo.spec import ModelSpec
from vaezoo_cli.commands.show import build_example, count_parameters, example_inputs

ROOT = Path(__file__).parents[1]
EXPLORERS = ROOT / "build" / "explorers"
GALLERY = ROOT / "docs" / "gallery"
TITLES = {"posterior": "Posterior", "prior": "Prior", "objective": "Objective", "quantizer": "Quantizer"}
SHOWN_INPUTS = ("1x28x28", "3x64x64", "vector of 100", "series of 2x32", "table of 7 columns", "text of 16 ids of 28")


def write_model_pages(folder: Path) -> None:
    """Writes a page for each built-in model, and one that lists them. Pages that are unchanged keep their time."""
    folder.mkdir(exist_ok=True)
    models = [model for model in vaezoo.list_models() if model.built_in]
    write(folder / "index.md", index_page(models))
    for model in models:
        write(folder / f"{model.name}.md", model_page(model))


def write(file: Path, text: str) -> None:
    """Writes a page if it changes, because Sphinx reads pages with another time again."""
    if not file.exists() or file.read_text("utf-8") != text:
        file.write_text(text, "utf-8")


def index_page(models: Sequence[Registration]) -> str:
    """Returns the list of models, as `vaezoo list` shows it."""
    found = [(model.name, model.describe()) for model in models]
    rows = [(f"[{name}]({name}.md)", d.summary, d.posterior, d.prior, d.objective) for name, d in found]
    toctree = "\n".join(["```{toctree}", ":hidden:", "", *(model.name for model in models), "```"])
    return f"# All models\n\n{table(('model', 'summary', *PARTS), rows)}\n\n{toctree}\n"


def model_page(model: Registration) -> str:
    """Returns the page of a model."""
    spec = model.load()
    sections = {
        "Formulas": formulas(spec),
        "Images": images(model.name),
        "Explorer": explorer(model.name),
        "Options": options(spec),
        "Parameters": parameters(model),
        "Commands": commands(model.name),
        "Export": export(model),
        "Recipes": recipes(model.name),
    }
    text = "\n\n".join(f"## {title}\n\n{content}" for title, content in sections.items() if content)
    return f"# {model.name}\n\n{spec.summary}.\n\n{facts(spec, model.name)}\n\n{text}\n"


def facts(spec: ModelSpec[object], name: str) -> str:
    """Returns a table with the reference and the parts of a model."""
    rows = [("reference", linked(spec.reference))]
    rows += [(part, f"`{word}`" if word in PartOf(f"vaezoo.{part}s").choices() else word) for part, word in parts(spec)]
    rows += [("likelihood", "follows from the [data](../data.md), or [chosen](../models.md#likelihoods)")]
    rows += [("described in", f"[Models and likelihoods]({described_at(name)})")]
    return table(("", ""), rows)


def parts(spec: ModelSpec[object]) -> list[tuple[str, str]]:
    """Returns the kinds of parts of a model, each with the name of its default."""
    quantizer = getattr(getattr(spec.config, "quantizer", None), "part", None)
    return [*spec.part_names().items(), *([("quantizer", quantizer)] if quantizer else [])]


def formulas(spec: ModelSpec[object]) -> str:
    """Returns the formulas of the parts of a model as blocks of LaTeX."""
    found = [(kind, name, formula_of(spec, kind, name)) for kind, name in parts(spec)]
    return "\n\n".join(
        f"{TITLES[kind]}, `{name}`:\n\n```{{math}}\n{formula}\n```" for kind, name, formula in found if formula
    )


def formula_of(spec: ModelSpec[object], kind: str, name: str) -> str:
    """Returns the LaTeX of a part: what the model says, or else what the part of this name says. Empty for none."""
    if kind in spec.formulas:
        return spec.formulas[kind]
    group = PartOf(f"vaezoo.{kind}s")
    formula = getattr(group.load(name), "formula", "") if name in group.choices() else ""
    assert isinstance(formula, str)
    return formula


def images(name: str) -> str:
    """Returns the image of the gallery, with what it shows. Empty if there is none."""
    if not (GALLERY / f"{name}.png").exists():
        return ""
    what = "Test examples, their reconstructions, and two rows of samples. [Gallery](../gallery.md) says how."
    return f"![Examples, reconstructions and samples](../gallery/{name}.png)\n\n{what}"


def explorer(name: str) -> str:
    """Returns the page of `vaezoo explore` as a frame, or the commands that write it."""
    if not (EXPLORERS / name / "index.html").exists():
        return f"```sh\nvaezoo train {name}\nvaezoo explore {name} --serve\n```"
    page = f"../../explorers/{name}/index.html"
    frame = f'<iframe class="explorer" src="{page}" title="Explorer of {name}" loading="lazy"></iframe>'
    link = f'<p><a href="{page}">The explorer alone</a></p>'
    return f"```{{raw}} html\n{frame}\n{link}\n```"


def options(spec: ModelSpec[object]) -> str:
    """Returns the options as `vaezoo show` has them."""
    rows = [(f"`{o.name}`", show_value(o.default), o.type, o.help) for o in options_of(spec.config)]
    return table(("option", "default", "value", "meaning"), rows)


def parameters(model: Registration) -> str:
    """Returns how many parameters the modules have at the defaults, for inputs of several kinds."""
    rows = []
    for data in example_inputs():
        counts = count_parameters(model, {}, data)["parameters"] if data.name in SHOWN_INPUTS else None
        if counts is not None:
            rows.append((data.name, f"{sum(counts.values()):,}", ", ".join(f"{k} {v:,}" for k, v in counts.items())))
    return table(("input", "parameters", "of which"), rows)


def commands(name: str) -> str:
    """Returns the commands of a model from training to export."""
    lines = (f"train {name}", f"sample {name}", f"eval {name}", f"export {name} --onnx", f"show {name}")
    return "\n".join(["```sh", *(f"vaezoo {line}" for line in lines), "```"])


def export(model: Registration) -> str:
    """Returns the graphs that an export holds."""
    vae, _ = next(filter(None, (build_example(model, {}, data) for data in example_inputs())))
    rows = [(f"`{name}.onnx`", ", ".join(f"`{i}`" for i in graph.names)) for name, graph in vae.graphs().items()]
    left_out = f"\n\n{vae.left_out}" if vae.left_out else ""
    return f"{table(('graph', 'inputs'), rows)}\n\n[ONNX export](../export.md) describes the outputs.{left_out}"


def recipes(name: str) -> str:
    """Returns the recipes of a model with the published figure and ours. Empty if there are none."""
    found = [recipe for recipe in vaezoo.list_recipes() if recipe.model == name]
    if not found:
        return ""
    rows = [(f"`{r.name}`", r.data, r.evaluation.metric, published(r), ours(r), r.reference.source) for r in found]
    lines = [f"- `{r.name}`: {r.summary}. {r.notes}".rstrip() for r in found]
    columns = ("recipe", "data", "metric", "published", "ours", "source")
    intro = "Figures are nats for each test example, of `elbo` with the opposite sign. Less is better."
    return f"{intro}\n\n{table(columns, rows)}\n\n" + "\n".join(lines)


def published(recipe: Recipe) -> str:
    """Returns the figure of the literature."""
    return "" if recipe.reference.value is None else f"{recipe.reference.value:.2f}"


def ours(recipe: Recipe) -> str:
    """Returns the figure that this project measured."""
    return "not measured yet" if recipe.measured is None else f"{recipe.measured.value:.2f}"


@cache
def headings() -> tuple[str, ...]:
    """Returns the headings of docs/models.md."""
    return tuple(re.findall(r"^### (.*)$", (ROOT / "docs" / "models.md").read_text("utf-8"), re.MULTILINE))


def described_at(name: str) -> str:
    """Returns the link to the section of docs/models.md about a model. Several models may share one."""
    found = [heading for heading in headings() if name in re.split(r", | and ", heading)]
    anchor = found[0].replace(",", "").replace(" ", "-") if found else "composed-models-with-a-name"
    return f"../models.md#{anchor}"


def linked(reference: str) -> str:
    """Returns a reference whose numbers of arXiv are links."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", reference)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
