"""Tables as CSV text."""

import csv
import io
from collections.abc import Sequence


def to_csv(rows, columns: Sequence[str] | None = None) -> str:
    """Rows, dicts with the same keys, as CSV text with a header. Without `columns`, there must be at least one row."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
