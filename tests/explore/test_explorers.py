"""scripts/explorers.py writes a page for each model."""

import json

import pytest

import explorers


@pytest.mark.slow
def test_pages_of_models(fake_runtime, tmp_path, monkeypatch, capsys):
    def lines():
        options = ["--out", tmp_path / "pages", "--runs", tmp_path / "runs", "--runtime", fake_runtime]
        with pytest.raises(SystemExit) as e:
            explorers.main([*map(str, options), "mlp-vae", "tvae"])
        assert e.value.code == 0
        return capsys.readouterr().out.splitlines()

    monkeypatch.setattr(explorers, "STEPS", 3)
    pretrained, table = lines()
    assert pretrained.startswith("mlp-vae: mnist, step ") and table.startswith("tvae: penguins, step ")
    assert not (tmp_path / "runs" / "mlp-vae").exists() and (tmp_path / "runs" / "tvae").exists()
    assert len([*tmp_path.rglob("*.wasm")]) == 2  # the given one, and the copy of all pages
    page = tmp_path / "pages" / "tvae"
    facts = json.loads((page / "explore.json").read_text())
    assert (page / facts["runtime"] / "ort.wasm.min.mjs").is_file() and facts["name"] == "tvae"
    written = (page / "explore.json").stat().st_mtime_ns
    assert lines() == ["mlp-vae: kept", "tvae: kept"]
    assert (page / "explore.json").stat().st_mtime_ns == written


def test_a_model_that_fails_does_not_end_the_others(fake_runtime, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(explorers, "make_page", lambda name, *rest: explorers.vaezoo.get_model(name).summary)
    with pytest.raises(SystemExit) as e:
        explorers.main(["wrong", "tvae", "--out", str(tmp_path / "pages"), "--runtime", str(fake_runtime)])
    first, second = capsys.readouterr().out.splitlines()
    assert e.value.code == 1 and first.startswith("wrong: no page, because ") and second.startswith("tvae: Tables")
