"""How is a file written so that nobody ever reads half of it?"""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes a temporary file in the same folder, flushes it to the disk and renames it over `path`.

    After a crash `path` holds the old content or the new, never a part. Raises OSError where the folder cannot be
    written or the disk is full; the temporary file is then gone.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
