"""README.md and docs/: code blocks run, commands parse, links exist, and the prose keeps its limits."""

import csv
import json
import re
import shlex
import shutil
import statistics
import subprocess
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest
from defined_tests import missing_tests
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from vaezoo import TrainConfig, find_recipe, list_models, list_pretrained
from vaezoo.core.options import config_json, configure
from vaezoo.data.base import TensorSplit
from vaezoo.data.catalog import DATASETS
from vaezoo.data.images import digits as packaged_digits
from vaezoo.data.text.fit import fit_tokenizer
from vaezoo.evaluation.evaluate import METRICS, check_metrics
from vaezoo.plots.kinds import KINDS
from vaezoo.priors.kinds import make_kind
from vaezoo.registry import find_model
from vaezoo.testing import CHECKS
from vaezoo_cli.commands.sweep import split_values
from vaezoo_cli.main import COMMANDS, main, vaezoo
from vaezoo_cli.options import parse_options

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PROSE = [*PAGES, *TUTORIALS, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "benchmarks" / "README.md"]
LINKED = [*PROSE, ROOT / "CHANGELOG.md"]
SLOW = {"docs/anomalies.md", "docs/tables.md", "docs/text.md", "README.md", "docs/export.md", "docs/plugins.md"}
CHEAP = ("list", "show", "recipes", "pretrained", "doctor")  # commands that tests run

MAX_README_WORDS = 900
MAX_MEDIAN_WORDS = 15  # per sentence
MAX_SEMICOLONS = 3  # in 1,000 words


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def pages(paths):
    slow = pytest.mark.slow
    return [pytest.param(p, id=name_of(p), marks=slow if name_of(p) in SLOW else ()) for p in paths]


def blocks(page, *languages):
    """Returns the code blocks of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def commands(page):
    """Returns the arguments of each call of vaezoo in the shell blocks."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    direct = [line[1:] for line in words if line[:1] == ["vaezoo"]]
    return direct + [line[line.index("vaezoo_cli") + 1 :] for line in words if "vaezoo_cli" in line]


def prose(page):
    """Returns a page's text without code blocks, comments, tables, generated parts, links' targets and headings."""
    text = re.sub(r"<!-- ([\w-]+): written by.*?<!-- /\1 -->", "", page.read_text("utf-8"), flags=re.DOTALL)
    text = re.sub(r"^```.*?^```|<!--.*?-->|^    .*?$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"^(#.*|\|.*)$", "", text, flags=re.MULTILINE)


def sentences(page):
    """Returns the sentences of a page's prose; an item of a list ends one, too."""
    text = re.sub(r"`[^`]*`", "code", prose(page))
    paragraphs = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) ", text, flags=re.MULTILINE)
    parts = [part for p in paragraphs for part in re.split(r"(?<=[.!?])[*)]*\s+", " ".join(p.split()))]
    return [part for part in parts if len(part.split()) > 1]


@pytest.fixture
def small_digits(monkeypatch):
    """Makes the packaged digits a few hundred, so that trainings of the pages take seconds."""
    load = packaged_digits.load

    def load_few(*arguments):
        return tuple(TensorSplit(part.x[:240], part.y[:240]) for part in load(*arguments))

    monkeypatch.setattr(packaged_digits, "load", load_few)


@pytest.mark.parametrize("page", pages([p for p in PAGES if blocks(p, "python")]))
def test_python_blocks_run(page, small_digits, inside):
    document = Document.parse(str(page), PythonCodeBlockParser(), SkipParser())
    document.namespace["__name__"] = "__main__"
    for example in document.examples():
        example.evaluate()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* validation examples are few")
@pytest.mark.parametrize("page", [pytest.param(p, id=name_of(p)) for p in TUTORIALS])
def test_cells_of_tutorials_run(page, small_digits, inside):
    """With short trainings. The build of the site runs them as they stand."""
    cells = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(cells) >= 4
    names = {"display": lambda image: None}  # of IPython
    for cell in cells:
        exec(re.sub(r"\b(epochs|steps)=\d+", r"\1=2", cell), names)


def run_commands(page, capsys):
    """Runs the commands of a page one after another. Yields the arguments and the output of each."""
    for arguments in commands(page):
        with pytest.raises(SystemExit) as e:
            main(arguments)
        captured = capsys.readouterr()
        assert e.value.code == 0, (arguments, captured.err)
        yield arguments, captured


@pytest.mark.slow
def test_commands_from_photos_to_scores_run(inside, capsys):
    """A data scientist's commands run as they stand, one after another."""
    page = ROOT / "docs" / "anomalies.md"
    photos, *_ = Document.parse(str(page), PythonCodeBlockParser(), SkipParser()).examples()
    photos.evaluate()
    for arguments, captured in run_commands(page, capsys):
        if "checked.csv" in arguments:
            assert float(re.search(r"ROC AUC: (\S+)", captured.err)[1]) == 1
        if "--quantile" in arguments:
            with open("scores.csv", newline="") as file:
                marked = [row["name"] for row in csv.DictReader(file) if row["anomaly"] == "1"]
            assert {"003.jpg", "008.jpg"} <= set(marked) and len(marked) < 6
    with open("scores.csv", newline="") as file:  # of the export
        rows = sorted(csv.DictReader(file), key=lambda row: -float(row["neg_elbo"]))
    assert {row["name"] for row in rows[:2]} == {"003.jpg", "008.jpg"} and len(rows) == 12


@pytest.mark.slow
def test_commands_from_series_to_runtime_run(inside, capsys):
    """The commands of the page about series run as they stand, and the fault is where it was made."""
    page = ROOT / "docs" / "series.md"
    runtime, recordings, *others = Document.parse(str(page), PythonCodeBlockParser()).examples()
    recordings.evaluate()
    for arguments, captured in run_commands(page, capsys):
        if "--time-column" in arguments:
            assert "test 2025-01-26 00:00:00 to 2025-02-24 23:00:00" in " ".join(captured.err.split())
    for example in (runtime, *others):
        example.evaluate()
    with open("times.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 20 * 24 and [*rows[0]][:3] == ["time", "windows", "neg_elbo"]
    marked = {row["time"][:10] for row in rows if row["anomaly"] == "1"}
    assert "2024-05-13" in marked and marked <= {f"2024-05-{day}" for day in range(11, 16)}
    assert max(rows, key=lambda row: float(row["neg_elbo"]))["time"][:10] == "2024-05-13"


@pytest.mark.slow
def test_commands_from_sound_to_sound_run(inside, capsys):
    """The commands of the page about sound run as they stand."""
    page = ROOT / "docs" / "sound.md"
    tones, *_ = Document.parse(str(page), PythonCodeBlockParser()).examples()
    tones.evaluate()
    assert [*run_commands(page, capsys)]
    assert len([*Path("again").iterdir()]) == 40 and len([*Path("new").iterdir()]) == 5


@pytest.mark.slow
def test_commands_from_counts_to_the_runtime_run(inside, capsys):
    for arguments, captured in run_commands(ROOT / "docs" / "counts.md", capsys):
        if arguments[0] == "eval":
            assert "NLL-100" in captured.out
    for file in ("cells.npz", "drawn.npz"):
        with np.load(file) as drawn:
            assert drawn["x"].dtype == np.int64 and drawn["x"].shape == (100, 200) and drawn["x"].sum(1).min() > 100
    rows = {}
    for file in ("scores.csv", "again.csv"):
        with open(file, newline="") as lines:
            rows[file] = np.array([float(row["neg_elbo"]) for row in csv.DictReader(lines)])
    assert len(rows["scores.csv"]) == 1_000 and rows["again.csv"] == pytest.approx(rows["scores.csv"], rel=0.05)
    with open("expression.csv", newline="") as lines:
        means = [[float(row[f"gene-{i:03}"]) for i in range(200)] for row in csv.DictReader(lines)]
    assert np.sum(means, 1) == pytest.approx(np.full(100, 1_000), rel=0.2)


@pytest.mark.slow
def test_commands_from_texts_to_an_export_run(inside, capsys):
    page = ROOT / "docs" / "text.md"
    names, *_ = Document.parse(str(page), PythonCodeBlockParser(), SkipParser()).examples()
    names.evaluate()
    for arguments, captured in run_commands(page, capsys):
        if arguments[0] == "plot":
            assert len(captured.out.splitlines()) == 11
    with open("scores.csv", newline="") as file:
        rows = {row["name"]: float(row["neg_elbo"]) for row in csv.DictReader(file)}
    assert max(rows, key=rows.__getitem__) == "other.txt:2" and len(rows) == 3


@pytest.mark.slow
def test_commands_from_a_table_to_an_export_run(inside, capsys):
    page = ROOT / "docs" / "tables.md"
    file, *_ = Document.parse(str(page), PythonCodeBlockParser(), SkipParser()).examples()
    file.evaluate()
    assert [*run_commands(page, capsys)]
    with open("complete.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 344 and all(all(row.values()) for row in rows)
    with open("heavy.csv", newline="") as file:
        assert all(row["sex"] == "FEMALE" and int(row["body_mass_g"]) > 4000 for row in csv.DictReader(file))


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
@pytest.mark.parametrize("name", ["characters", "words"])
def test_javascript_encodes_texts_as_python_does(name, tmp_path):
    (code,) = blocks(ROOT / "docs" / "text.md", "js")
    texts = ["anna ä", "the  cat", "the dog", ""]
    tokenizer = fit_tokenizer(name, texts[1:3])
    data = json.dumps({"tokenizer": name, "symbols": tokenizer.symbols})
    call = f"{code}\nfor (const t of {json.dumps(texts)}) console.log([...encode(t, {data}, 10)].join(' '));"
    (tmp_path / "encode.js").write_text(call, "utf-8")
    output = subprocess.run(["node", tmp_path / "encode.js"], capture_output=True, text=True, check=True).stdout
    assert [line.split(" ") for line in output.splitlines()] == tokenizer.to_ids(texts, 10).astype(str).tolist()


@pytest.mark.parametrize("page", [pytest.param(p, id=name_of(p)) for p in LINKED if commands(p)])
def test_commands_parse(page):
    for arguments in commands(page):
        with click.Context(vaezoo, info_name="vaezoo") as parent:
            command = vaezoo.get_command(parent, arguments[0])
            assert command is not None, arguments
            given = command.make_context(arguments[0], arguments[1:], parent=parent).params
        options = parse_options(given.get("options", ()))
        if command.name == "fit-prior":
            make_kind(given["kind"], options)
            continue
        if options:
            config = find_model(given["model"]).load().config
            if command.name == "sweep":
                options = {name: split_values(config, name, text)[0] for name, text in options.items()}
            configure(config, options)
        if "metrics" in given:
            check_metrics(given["metrics"].split(","))
        if arguments[0] == "plot":
            assert given["kind"] in KINDS
        if given.get("recipe_name"):
            find_recipe(given["recipe_name"])
        settings = {k: v for k, v in given.items() if hasattr(TrainConfig(), k) and v is not None}
        if command.name == "train":
            configure(TrainConfig(), settings)


def test_cheap_commands_run(inside, capsys):
    for arguments in {tuple(a): a for page in PAGES for a in commands(page) if a[0] in CHEAP}.values():
        with pytest.raises(SystemExit) as e:
            main(arguments)
        assert e.value.code == 0, capsys.readouterr().err


def test_toml_blocks_are_valid(tmp_path):
    for page in PAGES:
        for code in blocks(page, "toml"):
            if "model" in tomllib.loads(code):
                (tmp_path / "own.toml").write_text(code)
                assert find_recipe(str(tmp_path / "own.toml")).training.epochs == 10


def test_readme_is_short():
    text = re.sub(r"^```.*?^```", "", README.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(text.split()) <= MAX_README_WORDS


@pytest.mark.parametrize("page", [pytest.param(p, id=name_of(p)) for p in PROSE])
def test_prose_is_plain(page):
    lengths = [len(sentence.split()) for sentence in sentences(page)]
    assert not lengths or statistics.median(lengths) <= MAX_MEDIAN_WORDS
    words = prose(page).split()
    assert sum(word.count(";") for word in words) <= MAX_SEMICOLONS * len(words) / 1000
    assert not re.search(r"\bpictures?\b", page.read_text("utf-8"), re.IGNORECASE)


def anchors(page):
    """Returns the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [pytest.param(p, id=name_of(p)) for p in LINKED])
def test_links_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_tests_that_pages_name_exist():
    named = {page: re.findall(r"`(tests/[\w/.]+::[\w\[\]-]+)`", page.read_text("utf-8")) for page in PROSE}
    assert len(named[ROOT / "docs" / "other-zoos.md"]) > 20
    assert [test for tests in named.values() for test in missing_tests(tests)] == []


def test_tables_are_complete():
    built_in = [registration for registration in list_models() if registration.built_in]
    expected = {
        "docs/README.md": [f"vaezoo {name}" for name in COMMANDS],
        "docs/data.md": DATASETS,
        "docs/evaluation.md": [*METRICS, *KINDS],
        "docs/models.md": [name for r in built_in for name in (r.name, *config_json(r.load().config))],
        "docs/plugins.md": [check.__name__.removeprefix("check_") for check in CHECKS],
        "docs/pretrained.md": [card.name for card in list_pretrained()],
    }
    for page, names in expected.items():
        text = (ROOT / page).read_text("utf-8")
        missing = [name for name in names if not re.search(rf"`{name}[` ]|^#+ {name}$", text, re.MULTILINE)]
        assert missing == [], page
