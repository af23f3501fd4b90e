"""Why a source cannot be opened or read on, in one word that a program can act on."""

from __future__ import annotations

import errno
from typing import Literal

from deepfer_yolo.errors import SourceError
from deepfer_yolo.stream.address import Address, scrub

Reason = Literal[
    "refused", "timeout", "unauthorised", "not-found", "no-video", "codec", "unreadable", "truncated", "forbidden",
    "invalid", "device", "network", "eof", "crashed", "too-many-open",
]  # fmt: skip
SLOW_REASONS = frozenset({"unauthorised", "not-found", "no-video", "codec", "crashed"})
"""Failures that seldom heal within seconds."""
HINTS: dict[str, str] = {
    "refused": "check host and port, and that the publisher runs",
    "timeout": "check that the host is up; --open-timeout and --read-timeout set the limits",
    "unauthorised": "check user name and password in the URL; special characters must be percent-encoded",
    "not-found": "check the path of the URL",
    "no-video": "name a source that has a video stream",
    "codec": "re-encode it, for example as H.264",
    "unreadable": "check it with: ffprobe",
    "invalid": "check the parameters of the source, and --input-option",
    "truncated": "fetch the file again; what was there has been processed",
    "crashed": "its stream breaks FFmpeg; other sources go on",
    "too-many-open": "raise the limit of open files (ulimit -n), or lower --jobs; then --resume",
    "device": "deepfer doctor lists the cameras",
}


class SourceReadError(SourceError):
    """A source that cannot be opened or read on."""

    def __init__(self, message: str, reason: Reason = "network") -> None:
        super().__init__(message, HINTS.get(reason))
        self.reason = reason


def explain(error: BaseException, address: Address, doing: str) -> SourceReadError:
    """The failure behind an exception of FFmpeg's, in its own words: PyAV's message holds the raw URL."""
    if isinstance(error, SourceReadError):
        return error
    words = str(getattr(error, "strerror", None) or type(error).__name__)
    message = f"{doing} {address.name} failed: {scrub(words, address.target)}"
    return SourceReadError(message, _reason_of(error, address, is_opening=doing == "opening"))


def _reason_of(error: BaseException, address: Address, *, is_opening: bool) -> Reason:
    from av import error as av

    is_argument = isinstance(error, (av.ArgumentError, av.OptionNotFoundError, av.ProtocolNotFoundError))
    if is_opening and (address.kind == "pattern" or is_argument):
        return "invalid"
    reasons: dict[Reason, tuple[type[BaseException], ...]] = {
        "unauthorised": (av.HTTPUnauthorizedError, av.HTTPForbiddenError),
        "not-found": (av.HTTPNotFoundError, FileNotFoundError),
        "refused": (ConnectionRefusedError,),
        "timeout": (TimeoutError, av.ExitError),
        "codec": (av.DecoderNotFoundError, av.PatchWelcomeError),
        "unreadable": (av.InvalidDataError,),
    }
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return "too-many-open"
    unknown: Reason = "network" if address.kind == "network" else "unreadable"
    return next((reason for reason, kinds in reasons.items() if isinstance(error, kinds)), unknown)
