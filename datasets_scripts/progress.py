"""
The progress of a command: bars and log lines.

A terminal shows one bar at a time, which disappears when its work is done. Elsewhere, long work logs a line at each quarter.
Each stage ends with one line that gives its time. All lines are logged, so a program without logging is silent.
"""

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import ClassVar, TextIO

logger = logging.getLogger(__name__)

# Quarters that follow each other faster are not logged.
SECONDS_BETWEEN_LINES = 20


# Warnings of a library about the code of another library.
IGNORED_WARNINGS = (
    # trl 1.16 and peft 0.21 use the old name with transformers 5.23.
    "`is_gradient_checkpointing` is deprecated and will be removed in v6",
)


def set_up_output(stream: TextIO | None = None):
    """Sends log lines of the first process of a launch to a stream, by default the standard output, and turns off progress bars
    outside a terminal."""
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if first else logging.WARNING,
        format="%(message)s",
        handlers=[_Handler(stream or sys.stdout)],
    )
    logging.getLogger("torch").setLevel(logging.WARNING)  # torch logs a summary of its caches at the end
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", re.escape(message))
    if first and sys.stderr.isatty():
        os.environ.setdefault("TQDM_LEAVE", "")  # full bars disappear
    else:
        for name in ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(name, "1")


class _Handler(logging.StreamHandler):
    """Writes above the bar if there is one."""

    def emit(self, record: logging.LogRecord):
        if "tqdm" not in sys.modules:
            super().emit(record)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(self.stream):
            super().emit(record)


class Progress:
    """The progress of some work.

    Args:
        what: name of the work, such as "scoring".
        total: number of parts.
        unit: name of the parts, such as "files".
        done: number of parts that an earlier run finished.
    """

    listener: ClassVar[Callable[[str], None] | None] = None
    """Called with the progress as text instead of drawing a bar, if another process shows it."""

    def __init__(self, what: str, total: int, unit: str = "steps", done: int = 0):
        self.what, self.total, self.unit, self.done, self._before = what, total, unit, done, done
        self._started = self._logged = time.monotonic()
        self._quarter, self._bar = 4 * done // max(total, 1), None
        if self.listener is None and logger.isEnabledFor(logging.INFO) and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=what, total=total, unit=f" {unit}", initial=done, leave=False)

    def update(self, parts: int = 1, note: str = ""):
        """Adds finished parts; `note` is shown beside the progress, such as "loss 0.53"."""
        self.done += parts
        if self.listener is not None:
            type(self).listener(f"{self.what} {self.done / max(self.total, 1):.0%}")
        elif self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(parts)
        else:
            self._log(note)

    def _log(self, note: str):
        now, quarter = time.monotonic(), 4 * self.done // max(self.total, 1)
        if quarter == self._quarter or now - self._logged < SECONDS_BETWEEN_LINES or self.done >= self.total:
            return
        self._quarter, self._logged = quarter, now
        left = duration((now - self._started) * (self.total - self.done) / (self.done - self._before))
        logger.info(
            "  %s: %d of %d %s%s, %s left",
            self.what,
            self.done,
            self.total,
            self.unit,
            f", {note}" * bool(note),
            left,
        )

    def close(self):
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error):
        self.close()


def progress(items: Collection, what: str, unit: str) -> Iterator:
    """Yields the items and shows how many are done."""
    with Progress(what, len(items), unit) as bar:
        for item in items:
            yield item
            bar.update()


def finished(stage: str, seconds: float, *facts: str):
    """Logs one line about a finished stage: its name, its time, and facts such as its accuracy."""
    logger.info("%s", f"{stage:<22}{duration(seconds):>8}   {', '.join(facts)}".rstrip())


def duration(seconds: float) -> str:
    """`95 s`, `12 min` or `3.4 h`."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
