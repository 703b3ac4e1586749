"""What does a command tell the shell, and the user, about how it ended?"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from jaxdarts.errors import InputError, RunError, RunInterrupted

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def exit_code(command: Callable[[], None]) -> int:
    """Runs a command and prints what stopped it, if anything did, in one line.

    Returns:
      0 done, 2 bad input, 130 interrupted after saving, 1 anything else that failed.
    """
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return _fail("interrupted", "nothing was saved", INTERRUPTED)
    except Exception:
        traceback.print_exc()
        return FAILED


def _fail(kind: str, message: object, code: int) -> int:
    print(f"{kind}: {' '.join(str(message).split())}", file=sys.stderr)
    return code
