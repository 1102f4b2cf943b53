"""vaezoo explore [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

import contextlib
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vaezoo.errors import VaezooError
from vaezoo_cli.options import checkpoint_option, open_run, source_argument

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

PORT = 8765


@click.command()
@source_argument
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Folder of the page.  [default: explore/ in the run folder, or in EXPORT-outputs/]",
)
@click.option("--serve", is_flag=True, help="Serve the page to this machine, and open a browser.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help=f"Port of --serve.  [default: {PORT}]")
@click.option(
    "--runtime",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="A copy of onnxruntime-web.  [default: that of this package, else it is fetched once]",
)
@checkpoint_option
def explore(
    source: str | None, out: str | None, serve: bool, port: int | None, runtime: str | None, checkpoint: str
) -> None:
    """Write a page that explores a model's latents in a browser, without a server of its own.

    The page moves latents, encodes images, interpolates, and draws samples. It needs no other host, so it works
    offline. Any web server can give its folder. --serve does, until Ctrl-C.

    A run is exported for it. An export needs no PyTorch.
    """
    if port is not None and not serve:
        raise VaezooError("--port has no effect without --serve", "give --serve too")
    from vaezoo.explore.server import address, make_server

    folder = write(source, out, runtime, checkpoint)
    click.echo(f"written  {folder}/")
    if serve:
        with make_server(folder, PORT if port is None else port) as server:
            show(server, address(server))


def write(source: str | None, out: str | None, runtime: str | None, checkpoint: str) -> Path:
    """Writes the page of the model that a user names, and returns its folder."""
    from vaezoo.explore.page import write_page
    from vaezoo.explore.web_runtime import find_runtime
    from vaezoo.plots.output import default_output_dir
    from vaezoo.runtime.export_files import is_export

    if source is not None and is_export(source):
        if checkpoint != "best":
            raise VaezooError(f"{source} is an export, which contains one checkpoint", "leave out --checkpoint")
        folder = Path(source)
        files = find_runtime(runtime)
        target = Path(out) if out else default_output_dir(folder) / "explore"
        return write_page(folder, target, files, folder.resolve().name)
    if source is not None and Path(source).is_dir() and not (Path(source) / "run.json").exists():
        raise VaezooError(f"{source} is neither an export nor a run", "give a folder that vaezoo wrote")
    run, files = open_run(source, checkpoint), find_runtime(runtime)
    target = Path(out) if out else default_output_dir(run.path) / "explore"
    from vaezoo import export_onnx

    with tempfile.TemporaryDirectory(prefix="vaezoo-explore-") as temporary:
        exported = export_onnx(run, Path(temporary) / run.path.resolve().name)
        return write_page(exported.path, target, files, exported.path.name)


def show(server: ThreadingHTTPServer, url: str) -> None:
    """Opens a browser on a server's page, and serves it until the user stops it."""
    click.echo(f"serving  {url}  (Ctrl-C ends it)")
    if not webbrowser.open(url):
        click.echo(f"vaezoo: warning: no browser was found; open {url} yourself", err=True)
    with contextlib.suppress(KeyboardInterrupt):  # the usual end, and no error
        server.serve_forever()
