"""Files that are written whole or not at all."""

import os
from pathlib import Path


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file so that a reader, or a program that is killed, never sees half of it; makes the folders above it.

    Until it is whole it lies beside its place under a hidden name, which `find_files` leaves out.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    os.replace(unfinished, path)
