"""The files that a benchmark writes."""

import json

from action_llm_datasets.atomic_files import write_atomically


def write_results(output: str, record: dict, page: str) -> None:
    """Writes `OUTPUT.json` and the page `OUTPUT.md`, and prints the page.

    Args:
        output: path of the files, without a suffix.
        record: the measurements.
        page: Markdown.
    """
    write_atomically(f"{output}.json", json.dumps(record, indent=1) + "\n")
    write_atomically(f"{output}.md", page)
    print(page, end="")
