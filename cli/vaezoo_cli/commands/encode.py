"""vaezoo encode [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.plots.output import default_output_dir, output_suffixes
from vaezoo_cli.data_options import DataOptions, data_options
from vaezoo_cli.options import checkpoint_option, limit_option, load_model, out_option, source_argument


@click.command()
@source_argument
@limit_option
@checkpoint_option
@data_options()
@out_option("latents.npz")
def encode(
    source: str | None,
    limit: int | None,
    checkpoint: str,
    data: DataOptions,
    out: str | None,
) -> None:
    """Write the posteriors of examples to a file.

    \b
    .npz           the fields of q(z|x), such as mu and logvar, with name and y
    .npy           the mode of q(z|x) alone, such as mu
    .csv .parquet  one row for each example, with columns such as mu_0

    name is the file of an example, or its index. y is its label, if the data have labels. The examples keep the order
    of the data. They come from --data, by default from all parts of the data set that the model was trained on. part
    says to which part an example belongs, if there are several.

    RUN, MODEL, PRETRAINED and EXPORT are as in 'vaezoo sample'.
    """
    from vaezoo.core.result_files import WRITERS, require_pyarrow, write_arrays
    from vaezoo.evaluation.outputs import iter_encoded, mode_name
    from vaezoo_cli.data_files import row_columns, with_rows

    (suffix,) = output_suffixes(out or "latents.npz", tuple(WRITERS))
    if suffix == ".parquet":
        require_pyarrow()
    model = load_model(source, checkpoint)
    examples = data.load(model.model, default_part="all").limited(limit)
    path = Path(out) if out else default_output_dir(model.folder) / "latents.npz"
    chunks = with_rows(row_columns(examples), iter_encoded(model.model, examples.split))
    write_arrays(path, chunks, len(examples), mode_name(model.model))
    click.echo(path)
