"""Files that are written whole or not at all."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file whole or not at all, also if the program is killed. Missing parent folders are created."""
    with written_whole(path) as unfinished:
        unfinished.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path to write to. The file is moved to `path` when the block ends, or removed if the block fails.

    The temporary file is in the same folder and has a hidden name, which `find_files` leaves out. It names host and process, so
    that machines may write the same file to a shared disk. Missing parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
