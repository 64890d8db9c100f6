"""
What a command says while it runs: a page that a person reads.

A terminal has one bar at a time, which is gone when its work is done; anywhere else, long work has a line at each quarter.
When a stage ends it says so in one line, with its time. All of it is logged, so a program that sets up no logging is silent.
"""

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import ClassVar

logger = logging.getLogger(__name__)

# Work that takes less between two quarters has no line for them.
SECONDS_BETWEEN_LINES = 20


# Warnings that a library raises about another library's code.
OF_OTHERS = (
    # trl 1.16 and peft 0.21 ask models of transformers 5.23 by the former name.
    "`is_gradient_checkpointing` is deprecated and will be removed in v6",
)


def set_up_output():
    """Log lines go to standard output, from the first process of a launch alone; libraries draw no bars in a log."""
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(message)s", handlers=[_Handler()])
    logging.getLogger("torch").setLevel(logging.WARNING)  # it sums up its caches at the end
    for message in OF_OTHERS:
        warnings.filterwarnings("ignore", re.escape(message))
    if first and sys.stderr.isatty():
        os.environ.setdefault("TQDM_LEAVE", "")  # bars go when they are full
    else:
        for name in ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(name, "1")


class _Handler(logging.StreamHandler):
    """Writes to standard output, above the bar where there is one."""

    def __init__(self):
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord):
        if "tqdm" not in sys.modules:
            super().emit(record)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(self.stream):
            super().emit(record)


class Progress:
    """How far some work is.

    Args:
        what: the work, as "scoring".
        total: number of its parts.
        unit: what parts are called, as "files".
        done: parts that were there before.
    """

    listener: ClassVar[Callable[[str], None] | None] = None
    """Called with the text of the progress instead of drawing a bar; used when another process shows it."""

    def __init__(self, what: str, total: int, unit: str = "steps", done: int = 0):
        self.what, self.total, self.unit, self.done, self._before = what, total, unit, done, done
        self._started = self._said = time.monotonic()
        self._quarter, self._bar = 4 * done // max(total, 1), None
        if self.listener is None and logger.isEnabledFor(logging.INFO) and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=what, total=total, unit=f" {unit}", initial=done, leave=False)

    def update(self, parts: int = 1, note: str = ""):
        """Some parts are done; `note` is what else there is to say, as "loss 0.53"."""
        self.done += parts
        if self.listener is not None:
            type(self).listener(f"{self.what} {self.done / max(self.total, 1):.0%}")
        elif self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(parts)
        else:
            self._say(note)

    def _say(self, note: str):
        now, quarter = time.monotonic(), 4 * self.done // max(self.total, 1)
        if quarter == self._quarter or now - self._said < SECONDS_BETWEEN_LINES or self.done >= self.total:
            return
        self._quarter, self._said = quarter, now
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
    """The items; says how many of them are done."""
    with Progress(what, len(items), unit) as so_far:
        for item in items:
            yield item
            so_far.update()


def finished(stage: str, seconds: float, *facts: str):
    """Says in one line that a stage is done, how long it took, and the facts of it that a person asks for."""
    logger.info("%s", f"{stage:<22}{duration(seconds):>8}   {', '.join(facts)}".rstrip())


def duration(seconds: float) -> str:
    """`95 s`, `12 min` or `3.4 h`."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
