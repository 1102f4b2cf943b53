"""Where the files of a plot, and of other outputs about a model, go."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vaezoo.errors import VaezooError

PACKAGE = Path(__file__).parents[1]


class PlotResult(NamedTuple):
    """A drawn plot.

    Attributes:
        folder: The model's folder.
        files: Suffix -> content of the file.
    """

    folder: Path
    files: dict[str, bytes]

    def save(self, name: str, out: str | None) -> list[Path]:
        """Writes the files and returns their paths.

        Args:
            name: File name without suffix, for the default output folder.
            out: Path of the file, or None for the default.
        """
        from vaezoo.core.atomic import write_file

        if out is not None and Path(out).suffix.lower() not in self.files:
            raise VaezooError(f"cannot write '{out}'", f"give a name that ends in {' or '.join(self.files)}")
        paths = {s: Path(out) if out else default_output_dir(self.folder) / f"{name}{s}" for s in self.files}
        for suffix, path in paths.items():
            write_file(path, self.files[suffix])
        return list(paths.values())


def output_suffixes(out: str | None, supported: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the suffixes of the files to write: that of `out`, or all supported ones without `out`.

    Raises:
        VaezooError: If the suffix of `out` is not supported.
    """
    if out is None:
        return supported
    suffix = Path(out).suffix.lower()
    if suffix not in supported:
        formats = " or ".join(s.removeprefix(".").upper() for s in supported)
        raise VaezooError(
            f"cannot write '{out}': the format must be {formats}", f"give a name that ends in {' or '.join(supported)}"
        )
    return (suffix,)


def default_output_dir(folder: Path) -> Path:
    """Returns the folder for output files about a model.

    It is the run folder itself, EXPORT-outputs/ beside an export, and ./pretrained/NAME/ for a pretrained model. An
    export is a set of files that belong together, and nothing is written into the package.
    """
    from vaezoo.runtime.export_files import is_export

    if PACKAGE in folder.parents:
        return Path("pretrained") / folder.name
    if is_export(folder):
        named = folder if folder.name not in ("", "..") else folder.resolve()
        return named.with_name(f"{named.name}-outputs")
    return folder
