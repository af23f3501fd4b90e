"""Ctrl-C and SIGTERM as a wish that the training loop grants at the next batch, once its state is saved."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


class StopSignal:
    """Remembers the first SIGINT or SIGTERM; a second one ends the program at once, as it would without this."""

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._remember)
        return self

    def __exit__(self, *unused: object) -> None:
        self._restore()

    def given(self) -> bool:
        """Whether a signal has come."""
        return self.signum != 0

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signum

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()
        # Straight to the terminal: a handler may interrupt a print, and printing is not re-entrant.
        os.write(2, b"stopping at the next batch, saving first; once more stops at once\n")

    def _restore(self) -> None:
        for signum, before in self._before.items():
            signal.signal(signum, before)
