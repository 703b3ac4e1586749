"""How do commands without a configuration read their arguments?"""

from __future__ import annotations

import argparse
from typing import NoReturn

from jaxdarts.errors import InputError


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors, of one line as all commands', instead of an exit from within."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        raise InputError(f"{message}; see --help")
