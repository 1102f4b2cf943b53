"""vaezoo plot: what each kind draws, and what it refuses."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaezoo_cli
from vaezoo import TrainConfig, from_arrays, load_data, train
from vaezoo.evaluation import latents
from vaezoo_cli.render import image_grids

CELL, GAP = 56, 2  # a digit, enlarged, and the line between two


@pytest.fixture(scope="module")
def plane(digits, tmp_path_factory):
    """A run with two latent dimensions."""
    out = tmp_path_factory.mktemp("runs") / "plane"
    return train("mlp-vae", digits, options={"latent_dim": 2}, config=TrainConfig(steps=30, batch_size=50), out=out)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """A run on vectors with labels, from arrays."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("vectors")
    np.savez(folder / "v.npz", x=rng.random((80, 9), np.float32), y=rng.integers(0, 2, 80))
    data = load_data(str(folder / "v.npz"))
    return train("mlp-vae", data, config=TrainConfig(steps=2, batch_size=8), out=folder / "run")


@pytest.fixture
def plot(run, inside):
    """Returns a function that plots, which has to succeed: the PNG, and its pixels."""

    def plot(source, kind, *arguments):
        path = getattr(source, "path", source)
        code, out, err = run("plot", path, "--kind", kind, *arguments, "--out", "p.png")
        assert code == 0, err
        assert out.strip() == "p.png"
        with Image.open("p.png") as image:
            image.load()
        return image

    return plot


@pytest.fixture
def refused(run, inside):
    """Returns a function that plots, which has to fail: error and hint."""

    def refused(code, source, kind, *arguments):
        path = getattr(source, "path", source)
        found, out, err = run("plot", path, "--kind", kind, *arguments, "--out", "none.png")
        lines = err.splitlines()
        assert (found, out, len(lines)) == (code, "", 2), err
        assert not Path("none.png").exists()
        return lines[0].removeprefix("vaezoo: error: "), lines[1].removeprefix("hint: ")

    return refused


def cells(image, rows, columns):
    """Cuts an annotated grid of digits: `(rows, columns, 28, 28)` bytes."""
    pixels = np.asarray(image)
    right, bottom = image.width, image.height
    left, top = right - columns * (CELL + GAP), bottom - rows * (CELL + GAP)
    return np.stack(
        [
            [pixels[top + r * (CELL + GAP) :, left + c * (CELL + GAP) :][:CELL:2, :CELL:2] for c in range(columns)]
            for r in range(rows)
        ]
    )


def levels(images):
    return image_grids.as_bytes(images.flatten(0, -4).numpy())[..., 0].reshape(*images.shape[:-3], 28, 28)


def test_samples_and_reconstructions_are_those_of_the_commands(plot, run, trained):
    for kind, command in (("samples", "sample"), ("reconstructions", "reconstruct")):
        plot(trained, kind, "-n", 5)
        assert run(command, trained.path, "-n", 5, "--out", "c.png")[0] == 0
        assert Path("p.png").read_bytes() == Path("c.png").read_bytes()


def test_the_manifold_holds_the_decoders_images(plot, plane):
    image = plot(plane, "manifold", "-n", 8)
    assert image.mode == "L"
    expected, _ = latents.manifold(plane.vae, 8)
    assert np.array_equal(cells(image, 8, 8), levels(expected))
    assert plot(plane, "manifold").width > 15 * CELL


def test_a_row_of_traversals_changes_one_dimension_of_one_held_out_image(plot, trained, plane):
    found = cells(plot(plane, "traversals", "-n", 5, "--seed", 3), 2, 5)
    test = load_data("digits").test
    drawn = torch.randperm(len(test), generator=torch.Generator().manual_seed(3))[:1]
    x = test.select(drawn).batch(slice(None)).x[0]
    assert np.array_equal(found, levels(latents.traversal(plane.vae, x, [0, 1], torch.linspace(-3, 3, 5))))
    image = plot(trained, "traversals", "-n", 3, "--dims", "7,0")
    assert cells(image, 2, 3).shape[:2] == (2, 3) and image.height < 3 * (CELL + GAP)


def test_traversals_are_animated_forth_and_back(run, plane, inside):
    shutil.copytree(plane.path, "r")
    code, out, _ = run("plot", "r", "--kind", "traversals")
    assert code == 0 and out.split() == ["r/traversals.png", "r/traversals.gif"]
    with Image.open("r/traversals.gif") as image:
        assert (image.format, image.n_frames, image.info["loop"]) == ("GIF", 48, 0)
        frames = []
        for i in range(48):
            image.seek(i)
            frames.append(np.asarray(image.convert("L")))
    assert all(np.array_equal(frames[i], frames[48 - i]) for i in range(1, 24))
    assert np.array_equal(frames[24][-CELL - GAP : -GAP : 2, GAP : GAP + CELL : 2], last_traversed(plane))
    assert not np.array_equal(frames[0][-CELL:], frames[24][-CELL:])


def last_traversed(plane):
    """The held-out image that seed 0 draws, with its last latent dimension at 3."""
    test = load_data("digits").test
    index = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:1]
    x = test.select(index).batch(slice(None)).x[0]
    return levels(latents.traversal(plane.vae, x, [1], torch.tensor([3.0])))[0, 0]


def test_an_interpolation_lies_between_two_images_and_their_reconstructions(plot, trained):
    found = cells(plot(trained, "interpolation", "-n", 3), 3, 11)
    ends = torch.from_numpy(found[:, [0, -1]]).unsqueeze(2).float() / 255
    for side, column in ((0, 1), (1, -2)):
        with torch.no_grad():
            assert np.abs(levels(trained.vae.reconstruct(ends[:, side])) - found[:, column].astype(int)).max() <= 1
    other = cells(plot(trained, "interpolation", "-n", 3, "--seed", 1), 3, 11)
    assert not np.array_equal(found, other)


def test_a_concept_is_shown_on_images_without_and_with_the_label(plot, trained):
    found = cells(plot(trained, "concept", "--label", 1, "-n", 5), 5, 6)
    x = torch.from_numpy(found[:, 0]).unsqueeze(1).float() / 255
    test = load_data("digits").test
    labels = [int(test.y[(test.x[:, 0] == torch.from_numpy(image)).flatten(1).all(1)][0]) for image in found[:, 0]]
    assert [label == 1 for label in labels] == [False] * 3 + [True] * 2
    with torch.no_grad():
        assert np.abs(levels(trained.vae.reconstruct(x)) - found[:, 3].astype(int)).max() <= 1
    codes = latents.encode(trained.vae, torch.from_numpy(found[:3, 1:].reshape(-1, 1, 28, 28)).float() / 255)
    train = load_data("digits").train.subsample(2000)
    direction = latents.attribute_direction(latents.encode(trained.vae, train.batch(slice(None)).x), train.y, 1)
    along = (codes @ direction).view(3, 5).mean(0)
    assert torch.all(along[1:] > along[:-1])  # from subtracted to added, more and more like the label


def test_factors_are_chosen(plot, refused, tmp_path_factory):
    folder = tmp_path_factory.mktemp("factors")
    factors = np.arange(120)[:, None] % [3, 2]
    np.savez(folder / "f.npz", x=np.random.default_rng(0).random((120, 1, 8, 8), np.float32), y=factors)
    data = load_data(str(folder / "f.npz"))
    run = train("mlp-vae", data, config=TrainConfig(steps=2, batch_size=8), out=folder / "run")
    for arguments in (["scatter"], ["scatter", "--factor", 2], ["concept", "--label", 0]):
        error, hint = refused(2, run, *arguments)
        assert "2 labels an example" in error and "--factor 0 to 1" in hint
    plot(run, "scatter", "--factor", 1, "-n", 50)
    plot(run, "concept", "--factor", 0, "--label", 2)
    error, hint = refused(2, run, "concept", "--factor", 0, "--label", 3)
    assert "no example has label 3" in error and "[0, 1, 2]" in hint


def spied(monkeypatch, name):
    """Lets charts draw nothing, and notes what it was given."""
    from vaezoo_cli.render import charts

    given = []
    real = getattr(charts, name)
    monkeypatch.setattr(charts, name, lambda *arguments: (given.append(arguments), real(*arguments))[1])
    return given


def test_a_scatter_of_two_dimensions_shows_the_codes_themselves(plot, plane, monkeypatch):
    given = spied(monkeypatch, "scatter")
    image = plot(plane, "scatter", "-n", 300)
    assert image.size == (840, 720)
    test = load_data("digits").test.subsample(300)
    points, labels, kind, title, axes = given[0]
    assert kind == "label"
    assert torch.equal(points, latents.encode(plane.vae, test.batch(slice(None)).x)) and torch.equal(labels, test.y)
    assert axes == ("z0", "z1") and "300 test examples" in title
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels[np.ptp(pixels.astype(int), axis=1) > 60], axis=0)) > 9  # a colour a label


def test_a_scatter_of_more_dimensions_or_of_vectors_says_that_it_is_projected(plot, trained, vectors, monkeypatch):
    given = spied(monkeypatch, "scatter")
    plot(trained, "scatter", "-n", 100)
    plot(vectors, "scatter")
    for (points, _, _, title, axes), dims in zip(given, (16, 20), strict=True):
        assert points.shape[1] == 2 and f"2 principal components of {dims} latent dimensions" in title
        assert "% of the variance" in axes[0]


@pytest.fixture
def lines(monkeypatch):
    """The points of each line that was drawn, by the number of its axes and its name."""
    from matplotlib.axes import Axes

    drawn = {}
    real = Axes.plot

    def noted(ax, x, y, *arguments, **settings):
        drawn[ax.get_subplotspec().num1, settings["label"]] = list(zip(x, y, strict=True))
        return real(ax, x, y, *arguments, **settings)

    monkeypatch.setattr(Axes, "plot", noted)
    return drawn


def test_curves_draw_what_the_run_reported(plot, trained, lines):
    assert plot(trained, "curves").width > 1200
    reports = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    for number, (term, sign) in enumerate((("elbo", -1), ("reconstruction", 1), ("kl", 1))):
        for split in ("train", "valid"):
            expected = [(r["step"], sign * r[term]) for r in reports if r["split"] == split]
            assert lines[number, split] == expected and expected


def test_a_curve_of_one_report_is_a_dot(plot, trained, inside):
    shutil.copytree(trained.path, "r")
    log = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    first = next(report for report in log if report["split"] == "train")
    Path("r/metrics.jsonl").write_text(json.dumps(first) + "\n")
    pixels = np.asarray(plot("r", "curves").convert("RGB")).astype(int)
    blue = np.abs(pixels - (0x1F, 0x77, 0xB4)).sum(2) < 30
    assert blue[:, : blue.shape[1] // 3].any() and blue[:, -blue.shape[1] // 3 :].any()  # in panels without legend, too


def test_curves_of_a_pretrained_model_name_only_what_was_kept_of_it(plot, lines):
    plot("mlp-vae-mnist", "curves")
    assert {name for _, name in lines} == {"valid"}


def test_names_are_no_formulas(run, trained, inside):
    folder = Path(r"$\x$")
    shutil.copytree(trained.path, folder)
    code, _, err = run("plot", folder, "--kind", "curves")
    assert code == 0, err


def test_curves_leave_out_a_report_in_the_making(plot, trained):
    shutil.copytree(trained.path, "r")
    plot("r", "curves")
    whole = Path("p.png").read_bytes()
    with Path("r/metrics.jsonl").open("a") as f:
        f.write('{"split": "train", "step": 9')
    plot("r", "curves")
    assert Path("p.png").read_bytes() == whole


@pytest.mark.parametrize(
    ("log", "error"), [(None, "metrics.jsonl"), ("", "no reports yet"), ("{}\nx\n", "damaged"), ("[1]\n", "damaged")]
)
def test_runs_without_a_log_have_no_curves(refused, trained, inside, log, error):
    shutil.copytree(trained.path, "r")
    Path("r/metrics.jsonl").unlink()
    if log is not None:
        Path("r/metrics.jsonl").write_text(log)
    assert error in refused(3, "r", "curves")[0]


class Without:
    """Finds no matplotlib, as where it is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name == "matplotlib":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def test_charts_without_matplotlib_name_the_extra(refused, trained, monkeypatch):
    monkeypatch.delitem(sys.modules, "vaezoo_cli.render.charts", raising=False)
    monkeypatch.delattr(vaezoo_cli, "charts", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without(), *sys.meta_path])
    for kind in ("scatter", "curves"):
        error, hint = refused(2, trained, kind)
        assert "needs matplotlib" in error and hint == 'pip install "vaezoo[plot]"'


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "hint"),
    [
        ("manifold", [], "2 latent dimensions", "latent_dim=2"),
        ("manifold", ["-n", "101"], "-n 101 is too much", "at most 100"),
        ("manifold", ["--dims", "1"], "--dims does nothing for manifold", "leave it out"),
        ("manifold", ["--data", "digits"], "--data does nothing", "leave it out"),
        ("curves", ["-n", "3"], "-n does nothing for curves", "leave it out"),
        ("traversals", ["--dims", "x"], "--dims takes numbers, not 'x'", "--dims 0,3"),
        ("traversals", ["--dims", "16"], "no latent dimension 16", "from 0 to 15"),
        ("traversals", ["--dims", ",".join("0" * 101)], "101 latent dimensions are too many", "--dims 0,1,2"),
        ("concept", [], "a concept needs a label", "[0, 1, 2"),
        ("concept", ["--label", "10"], "no example has label 10", "[0, 1, 2"),
        ("concept", ["--label", "1", "--factor", "0"], "one label an example", "leave out --factor"),
        ("image", [], "is not one of", "vaezoo plot --help"),
    ],
)
def test_what_a_kind_cannot_draw_is_refused(refused, trained, kind, arguments, error, hint):
    said = refused(2, trained, kind, *arguments)
    assert error in said[0] and hint in said[1]


def test_data_without_labels_have_no_scatter_and_no_concept(refused, trained, inside):
    Path("images").mkdir()
    for i in range(30):
        Image.new("L", (28, 28), 8 * i).save(f"images/{i}.png")
    for arguments in (["scatter"], ["concept", "--label", "1"]):
        error, hint = refused(2, trained, *arguments, "--data", "images")
        assert "no labels" in error and "digits" in hint


@pytest.mark.parametrize("kind", ["samples", "traversals", "interpolation", "manifold", "concept"])
def test_vectors_are_no_images(refused, vectors, kind):
    assert "(9,)" in refused(2, vectors, kind)[0]


def test_one_latent_dimension_has_no_scatter(refused, digits, tmp_path_factory):
    config = TrainConfig(steps=1, batch_size=8)
    run = train("mlp-vae", digits, options={"latent_dim": 1}, config=config, out=tmp_path_factory.mktemp("o") / "r")
    assert "has 1" in refused(2, run, "scatter")[0]


def test_one_image_has_no_interpolation(refused, digits, tmp_path_factory):
    x = digits.train.batch(slice(0, 12)).x.numpy()
    np.savez(folder := tmp_path_factory.mktemp("one") / "x.npz", x=x)
    data = from_arrays(x)
    run = train("mlp-vae", data, config=TrainConfig(steps=1, batch_size=4), out=folder.parent / "r")
    assert "the valid part has 1 image" in refused(2, run, "interpolation", "--data", folder)[0]


def test_most_kinds_need_a_run(refused, inside):
    Path("export").mkdir()
    for file in ("manifest.json", "encoder.onnx", "decoder.onnx"):
        Path("export", file).touch()
    for kind in ("traversals", "scatter", "curves"):
        error, hint = refused(2, "export", kind)
        assert "is an export" in error and "run folder" in hint


def test_the_name_of_the_file_says_the_format(run, trained, inside):
    for kind, error in (("samples", "no name of a PNG"), ("traversals", "no name of a PNG or GIF")):
        code, _, err = run("plot", trained.path, "--kind", kind, "--out", "p.jpg")
        assert code == 2 and error in err
    code, out, _ = run("plot", trained.path, "--kind", "traversals", "--dims", "0", "--out", "p.gif")
    assert code == 0 and out.split() == ["p.gif"] == [p.name for p in inside.iterdir()]


def test_colour_and_texts_are_drawn_in_colour():
    images = np.zeros((6, 16, 16, 3), np.uint8)
    images[..., 0] = 200
    image = image_grids.image_grid(
        image_grids.caption(images, list("abcdef")), 3, title="t" * 100, heads="xyz", sides="pq"
    )
    assert image.mode == "RGB" and image.width > 3 * 66 + 100  # as wide as the title
    bare = image_grids.image_grid(images, 3)
    assert bare.size == (3 * 66 + 2, 2 * 66 + 2) and bare.getpixel((10, 10)) == (200, 0, 0)
