"""What does a command tell the shell, and the user, about how it ended?"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable

from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.runs.messages import abandon, flush_streams, open_closed_streams, say_error

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def exit_code(command: Callable[[], None]) -> int:
    """Runs a command and prints what stopped it, if anything did, in one line.

    Returns:
      0 done, 2 bad input, 130 interrupted after saving, 1 anything else that failed.
    """
    open_closed_streams()
    try:
        command()
        return DONE
    except InputError as error:
        return _fail("error", error, BAD_INPUT)
    except RunInterrupted as error:
        return _fail("interrupted", error, INTERRUPTED)
    except RunError as error:
        return _fail("error", error, FAILED)
    except BrokenPipeError:  # the reader of `... | head` has gone
        abandon(sys.stdout)
        return FAILED
    except KeyboardInterrupt:
        return _fail("interrupted", "nothing was saved", INTERRUPTED)
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF):
            say_error(traceback.format_exc().rstrip())
            return FAILED
        abandon(sys.stdout)  # a --help into a full disk, say: what belongs to a run is written by code that names it
        return _fail("error", f"cannot write: {error.strerror}", FAILED)
    except Exception:
        say_error(traceback.format_exc().rstrip())
        return FAILED
    finally:
        flush_streams()


def _fail(kind: str, message: object, code: int) -> int:
    say_error(f"{kind}: {' '.join(str(message).split())}")
    return code
