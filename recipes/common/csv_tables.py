"""Tables as CSV text."""

import csv
import io


def to_csv(rows) -> str:
    """Rows, dicts with the same keys, as CSV text with a header. There must be at least one row."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
