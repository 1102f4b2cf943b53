"""`vaezoo explore` without a browser: the files of the page, the server, and bad input."""

import hashlib
import http.client
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from explore_pages import WEB, require_package

from vaezoo import export_onnx
from vaezoo.core.tokenizer import BYTE_SYMBOLS, Tokenizer, make_symbols
from vaezoo.data import download
from vaezoo.errors import InputError, StorageError, VaezooError
from vaezoo.explore import page, web_runtime
from vaezoo.explore.server import HEADERS, make_server
from vaezoo_cli.commands import explore
from vaezoo_cli.main import main

PAGE_BYTES = 150 * 1024  # of the page without runtime and graphs


@pytest.fixture
def run(capsys):
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as e:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return e.value.code, captured.out, captured.err

    return run


def test_page_holds_the_export(run, exported, fake_runtime, inside):
    assert run("explore", exported.path, "--runtime", fake_runtime, "--out", "page")[:2] == (0, "written  page/\n")
    files = {file.relative_to("page").as_posix() for file in Path("page").rglob("*") if file.is_file()}
    runtime = {f"runtime/{name}" for name in (*web_runtime.WASM, "ONNXRUNTIME-LICENSE.md")}
    own = {"explore.json", "examples.bin", "manifest.json", "latents.json", "encoder.onnx", "decoder.onnx"}
    assert files == own | runtime | set(page.PAGE_FILES)
    for name in ("manifest.json", "decoder.onnx", "latents.json"):
        assert Path("page", name).read_bytes() == (exported.path / name).read_bytes()
    facts = json.loads(Path("page/explore.json").read_text())
    assert facts["name"] == exported.path.name and not facts["webgpu"]
    x = np.frombuffer(Path("page/examples.bin").read_bytes(), facts["examples"]["dtype"])
    assert len(x) == facts["examples"]["count"] * 784 and x.max() == 1
    assert run("explore", exported.path, "--runtime", fake_runtime, "--out", "page")[0] == 0


def test_page_is_small_and_names_no_host():
    files = [page.PAGE / name for name in page.PAGE_FILES]
    assert sum(file.stat().st_size for file in files) <= PAGE_BYTES
    assert not [file.name for file in files if b"://" in file.read_bytes()]


@pytest.mark.slow
def test_page_is_the_build_of_the_sources(tmp_path):
    esbuild = require_package("esbuild")
    wanted = json.loads((WEB / "package.json").read_text())["devDependencies"]["esbuild"]
    if json.loads((esbuild / "package.json").read_text())["version"] != wanted:
        pytest.skip(f"another version of esbuild than {wanted} is installed")
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    copy = shutil.copytree(WEB, tmp_path / "web", ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(esbuild.parent.resolve())
    subprocess.run(["node", "build.mjs", tmp_path / "built"], cwd=copy, check=True)
    for name in page.PAGE_FILES:
        assert (tmp_path / "built" / name).read_bytes() == (page.PAGE / name).read_bytes(), "run 'make web'"


LETTERS = Tokenizer("characters", make_symbols("abcdefé"))
WORDS = Tokenizer("words", ("", "\n", "\ufffd", "the", "cat", "sat"))
SUBWORDS = Tokenizer("subwords", make_symbols((*BYTE_SYMBOLS, "th", "the", "Ġt", "Ġth", "Ġthe", "ca", "cat")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokenizer", "texts"),
    [
        (LETTERS, ["abé", "fade", ""]),
        (WORDS, ["the  cat ran", "sat"]),
        (SUBWORDS, ["the cat, thé the", "a!! b"]),
    ],
)
def test_page_reads_texts_as_the_tokenizers_do(tokenizer, texts, tmp_path):
    esbuild = require_package("esbuild").parent / ".bin" / "esbuild"
    module = tmp_path / "texts.mjs"
    subprocess.run([esbuild, WEB / "src" / "texts.ts", "--bundle", "--format=esm", f"--outfile={module}"], check=True)
    data = {"symbols": tokenizer.symbols, "tokenizer": tokenizer.name, "shape": [40]}
    code = f"import {{ toIds, textOf }} from {json.dumps(str(module))}; const m = {{ data: {json.dumps(data)} }};"
    code += f"console.log(JSON.stringify({json.dumps(texts)}.map((t) => [toIds(t, m), textOf(toIds(t, m), m)])))"
    done = subprocess.run(["node", "--input-type=module", "-e", code], capture_output=True, text=True, check=True)
    ids, shown = zip(*json.loads(done.stdout), strict=True)
    np.testing.assert_array_equal(ids, tokenizer.to_ids(texts, 40))
    assert list(shown) == [text or "(empty)" for text in tokenizer.to_texts(np.array(ids))]


@pytest.mark.slow
def test_sources_have_the_types_they_say():
    require_package("typescript")
    if not (WEB / "node_modules").is_dir() or not shutil.which("npx"):
        pytest.skip("the packages of web/ are not installed there: run 'make browser'")
    done = subprocess.run(["npx", "tsc", "--noEmit"], cwd=WEB, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_run_is_exported_first(run, trained, fake_runtime, inside):
    code, out, _ = run("explore", trained.path, "--runtime", fake_runtime, "--out", "page")
    assert (code, out) == (0, "written  page/\n")
    assert json.loads(Path("page/explore.json").read_text())["name"] == trained.path.name
    assert not Path("exports").exists()


def test_export_needs_no_torch(exported, fake_runtime, inside):
    code = "import sys; sys.modules['torch'] = None; from vaezoo_cli.main import main; main(sys.argv[1:])"
    command = ["explore", str(exported.path), "--runtime", str(fake_runtime), "--out", "page"]
    subprocess.run([sys.executable, "-c", code, *command], check=True)
    assert Path("page/index.html").is_file()


def test_default_folder_is_beside_the_export(run, exported, fake_runtime, inside):
    shutil.copytree(exported.path, "mine")
    assert run("explore", "mine", "--runtime", fake_runtime)[:2] == (0, "written  mine-outputs/explore/\n")


def test_other_folders_are_kept(run, export_copy, fake_runtime, inside):
    Path("notes").mkdir()
    Path("notes/mine.txt").write_text("precious")
    code, _, err = run("explore", export_copy, "--runtime", fake_runtime, "--out", "notes")
    assert code == 5 and "notes exists and is not a page of 'vaezoo explore'" in err
    assert Path("notes/mine.txt").read_text() == "precious"
    assert run("explore", export_copy, "--runtime", fake_runtime, "--out", "page")[0] == 0
    Path("page/mine.txt").write_text("precious")
    assert run("explore", export_copy, "--runtime", fake_runtime, "--out", "page")[0] == 5
    assert Path("page/mine.txt").read_text() == "precious"


def test_bad_input_is_refused(run, export_copy, fake_runtime, inside, monkeypatch):
    def refused(*arguments):
        code, out, err = run("explore", *arguments, "--out", "page")
        assert out == "" and not Path("page").exists()
        return code, err

    Path("empty").mkdir()
    code, err = refused("empty", "--runtime", fake_runtime)
    assert code == 2 and "empty is neither an export nor a run" in err
    code, err = refused(export_copy, "--runtime", "empty")
    assert code == 2 and "empty is not a copy of onnxruntime-web: it has no ort.wasm.min.mjs" in err
    code, err = refused(export_copy, "--port", "1")
    assert code == 2 and "--port has no effect without --serve" in err
    code, err = refused(export_copy, "--checkpoint", "last")
    assert code == 2 and "leave out --checkpoint" in err
    with monkeypatch.context() as patch:
        patch.setattr(page, "MAX_BYTES", 1000)
        code, err = refused(export_copy, "--runtime", fake_runtime)
        assert code == 2 and "but a page loads at most" in err and "--dtype fp16" in err
    (export_copy / "decoder.onnx").write_bytes(b"x")
    code, err = refused(export_copy, "--runtime", fake_runtime)
    assert code == 3 and "decoder.onnx has 1 bytes" in err


@pytest.mark.slow
def test_export_without_decoder_is_refused(trained, fake_runtime, tmp_path):
    export = export_onnx(trained, tmp_path / "encoder", parts=["encoder"]).path
    with pytest.raises(VaezooError, match="has no decoder") as e:
        page.write_page(export, tmp_path / "page", web_runtime.from_copy(fake_runtime), "x")
    assert "without --parts" in e.value.hint


def test_generated_examples_are_not_shown(export_copy):
    manifest = json.loads((export_copy / "manifest.json").read_text())
    assert page.example_files(export_copy) is not None
    for row in manifest["parity"]["rows"]:
        row["inputs"] = "generated examples"
    (export_copy / "manifest.json").write_text(json.dumps(manifest))
    assert page.example_files(export_copy) is None


def test_runtime_is_found_in_a_copy_of_npm(fake_runtime, tmp_path):
    dist = tmp_path / "project" / "node_modules" / "onnxruntime-web" / "dist"
    shutil.copytree(fake_runtime, dist)
    assert web_runtime.find_runtime(tmp_path / "project") == {name: dist / name for name in web_runtime.WASM}
    for name in web_runtime.WEBGPU:
        (dist / name).write_text("")
    assert web_runtime.find_runtime(dist.parent).keys() == {*web_runtime.WASM, *web_runtime.WEBGPU}


def test_runtime_of_the_package_comes_before_a_download(fake_runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(web_runtime, "PACKAGED", fake_runtime)
    assert web_runtime.find_runtime() == {name: fake_runtime / name for name in web_runtime.WASM}
    monkeypatch.setattr(web_runtime, "PACKAGED", tmp_path / "nothing")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "URL_PREFIXES", ("none:",))  # nothing may be fetched
    with pytest.raises(InputError, match=r"ort.wasm.min.mjs is not in .* cannot be downloaded") as e:
        web_runtime.find_runtime()
    assert e.value.hint.endswith("--runtime") and not (tmp_path / "cache").exists()
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError) as storage:
        web_runtime.find_runtime()
    assert "XDG_CACHE_HOME" in storage.value.hint


def test_runtime_is_what_npm_has():
    """What is fetched is the package whose version web/package.json pins."""
    dependencies = json.loads((WEB / "package.json").read_text())["devDependencies"]
    assert dependencies["onnxruntime-web"] == web_runtime.VERSION
    folder = require_package("onnxruntime-web") / "dist"
    for name, (size, sha256) in web_runtime.WASM.items():
        data = (folder / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha256)


def fetch(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse()


def test_server_sends_the_headers_of_threads(tmp_path):
    (tmp_path / "index.html").write_text("hello")
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "a.wasm").write_bytes(b"")
    (tmp_path / "runtime" / "a.mjs").write_bytes(b"")
    with make_server(tmp_path, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        response = fetch(server, "/")
        assert response.read() == b"hello" and HEADERS.items() <= dict(response.getheaders()).items()
        assert fetch(server, "/runtime/a.wasm").getheader("Content-Type") == "application/wasm"
        assert fetch(server, "/runtime/a.mjs").getheader("Content-Type") == "text/javascript"
        assert fetch(server, "/runtime/").status == 404 and fetch(server, "/../etc/passwd").status == 404
        server.shutdown()


def test_serve(run, export_copy, fake_runtime, inside, monkeypatch):
    served = []
    monkeypatch.setattr(explore.webbrowser, "open", lambda url: served.append(url))
    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupt)
    arguments = ("explore", export_copy, "--runtime", fake_runtime, "--out", "page", "--serve", "--port")
    code, out, err = run(*arguments, 0)
    assert code == 0 and f"serving  {served[0]}  (Ctrl-C ends it)" in out and "no browser was found" in err
    with make_server(inside, 0) as taken:
        code, _, err = run(*arguments, taken.server_port)
    assert code == 2 and f"port {taken.server_port} is in use" in err and "--port 0" in err


def interrupt(server):
    raise KeyboardInterrupt


def test_page_in_a_file_is_refused(export_copy, fake_runtime, tmp_path):
    (tmp_path / "page").write_text("mine")
    with pytest.raises(StorageError, match="is not a folder"):
        page.write_page(export_copy, tmp_path / "page", web_runtime.from_copy(fake_runtime), "x")
