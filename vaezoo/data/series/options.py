"""The options of data that are series, sound or counts."""

from __future__ import annotations

from dataclasses import dataclass

from vaezoo.core.counts import whole_number
from vaezoo.data.label_patterns import check_pattern
from vaezoo.data.series.layout import MIN_STEPS
from vaezoo.data.sound.sound_files import check_rate
from vaezoo.errors import VaezooError, safe_repr, suggest

SOUND = ("sound", "waveform")  # those that read sound files
KINDS = ("series", *SOUND, "counts")


@dataclass(frozen=True, kw_only=True)
class SeriesOptions:
    """The options of data that say that they are series, sound or counts. Each of them does.

    Attributes:
        kind: "series", "sound", "waveform", "counts", or None.
        time_column: The column of a CSV file that holds times.
        window: Steps of each window of a recording.
        stride: Steps between the starts of two windows. None: as many as a window has.
        sample_rate: Samples of sound in a second, to which files are resampled.
        layer: The layer of a .h5ad file that holds counts.
        label_column: The column of its observations that holds labels.
        label_pattern: A regular expression. Its groups are the labels in the names of sound files.

    Raises:
        VaezooError: If a value is out of range, or a stride comes without a window.
    """

    kind: str | None = None
    time_column: str | None = None
    window: int | None = None
    stride: int | None = None
    sample_rate: int | None = None
    layer: str | None = None
    label_column: str | None = None
    label_pattern: str | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            kind = safe_repr(self.kind)
            hint = suggest(kind, KINDS, "use series, sound, waveform or counts")
            raise VaezooError(f"no kind of data named '{kind}'", hint)
        if not isinstance(self.time_column, str | None):
            raise VaezooError(f"time column {safe_repr(self.time_column)} is not a name", "give the name of a column")
        if self.window is not None:
            whole_number("window", self.window, MIN_STEPS)
        if self.stride is not None:
            whole_number("stride", self.stride, 1)
            if self.window is None and self.kind not in SOUND:
                raise VaezooError("a stride needs a window", "give --window, too")
        if self.sample_rate is not None:
            check_rate(whole_number("sample rate", self.sample_rate, 1))
            if self.kind not in SOUND:
                raise VaezooError("a sample rate is that of sound", "give --kind sound, too")
        if self.label_pattern is not None:
            check_pattern(self.label_pattern)
            if self.kind not in SOUND:
                raise VaezooError("a label pattern reads the names of sound files", "give --kind sound, too")
        self._check_counts()

    def _check_counts(self) -> None:
        """Raises VaezooError if options of counts are given for other data, or the reverse."""
        for_files = {"--layer": self.layer, "--label-column": self.label_column}
        given = [name for name, value in for_files.items() if value is not None]
        if given and self.kind != "counts":
            raise VaezooError(f"{given[0]} is for counts in .h5ad files", f"leave out {given[0]}")
        if self.kind == "counts" and (self.time_column is not None or self.window is not None):
            option = "--time-column" if self.time_column is not None else "--window"
            raise VaezooError(f"{option} is for series, not for counts", f"leave out {option}")

    @property
    def names(self) -> list[str]:
        """The options that are given, as a user types them."""
        given = {f"--kind {self.kind}": self.kind, "--time-column": self.time_column, "--window": self.window}
        return [name for name, value in given.items() if value is not None]

    def refuse(self, data: str) -> None:
        """Raises VaezooError if one of the options is given for other data than series in files."""
        if self.names:
            raise VaezooError(f"{self.names[0]} has no effect on '{data}'", f"leave out {self.names[0]}")
