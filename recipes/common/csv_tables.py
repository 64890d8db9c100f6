"""Tables as CSV text."""

import csv
import io


def to_csv(rows) -> str:
    """Dicts with the same keys as CSV text."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
