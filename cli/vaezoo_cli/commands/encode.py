"""vaezoo encode [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaezoo_cli.data_options import DataOptions, data_options
from vaezoo_cli.options import checkpoint_option, default_output_dir, source_argument, suffixes_of
from vaezoo_cli.sources import LoadedModel, open_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo.data.base import Split

TOGETHER = 256  # examples that go through the encoder at once


@click.command()
@source_argument
@checkpoint_option
@data_options()
@click.option(
    "--out", type=click.Path(dir_okay=False), metavar="FILE", help="The file  [default: codes.npz beside the model]"
)
def encode(
    source: str | None,
    checkpoint: str,
    choice: DataOptions,
    out: str | None,
) -> None:
    """Write what the encoder makes of a data set, as arrays in a .npz file.

    For each part of the data (train, valid, test) the fields of q(z|x), such as mu_test and logvar_test, and the
    labels, y_test, where there are any, in the data's order. The examples come from --data, else from the data set that
    the model was trained on.

    RUN is a run folder; a model's name means its newest run; nothing means the newest run of all. PRETRAINED is a
    name that 'vaezoo pretrained' lists. EXPORT is a folder that 'vaezoo export' wrote.
    """
    import numpy as np

    from vaezoo.core.atomic import write_file

    suffixes_of(out, (".npz",))
    opened = open_source(source, checkpoint, images=False)
    dataset = choice.load(opened)
    arrays: dict[str, NDArray[Any]] = {}
    for name, part in (("train", dataset.train), ("valid", dataset.valid), ("test", dataset.test)):
        if part is not None and len(part):
            arrays |= {f"{field}_{name}": values for field, values in fields_of(opened, part).items()}
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    path = Path(out) if out else default_output_dir(opened.folder) / "codes.npz"
    write_file(path, file.getvalue())
    click.echo(path)


def fields_of(source: LoadedModel, part: Split) -> dict[str, NDArray[Any]]:
    """Returns the fields of q(z|x) of all examples of a part, and their labels as `y`."""
    import numpy as np

    batches = [part.batch(slice(start, start + TOGETHER)).x.numpy() for start in range(0, len(part), TOGETHER)]
    fields = [source.encode(x) for x in batches]
    arrays = {name: np.concatenate([f[name] for f in fields]) for name in fields[0]}
    return arrays if part.y is None else arrays | {"y": part.y.numpy()}
