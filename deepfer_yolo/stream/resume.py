"""Going on where a run was ended: its jsonl files say which files are complete; what they hold of others is dropped."""

from __future__ import annotations

from collections.abc import Sequence

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import ConfigError
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.sinks.lines import LineSink, plain
from deepfer_yolo.stream.sinks.worker import Sink


def check_resume(sinks: Sequence[Sink], config: StreamConfig, addresses: Sequence[Address]) -> None:
    """Raise ConfigError where `config` asks for a resume that these sinks, settings and sources do not have."""
    if not config.resume:
        return
    if config.overwrite:
        raise ConfigError("--resume keeps what --overwrite would replace", "give one of them")
    if config.keep is not None and any(address.is_file for address in addresses):
        raise ConfigError("what --keep deletes, --resume would do again", "give one of them")
    if not any(sink.is_ledger for sink in sinks):
        raise ConfigError("--resume needs the file that says what is finished", "add --sink jsonl=FILE")


def left_to_do(addresses: Sequence[Address], sinks: Sequence[Sink]) -> list[Address]:
    """The sources that an earlier run did not complete, live ones among them.

    What the line sinks' files hold of the files that are done again, and half a line at the end, is dropped; a file is
    done again where one of them lacks it. Raises DeepferError for a file that holds other lines than a stream's.
    """
    logs = [sink for sink in sinks if isinstance(sink, LineSink) and sink.files]
    try:
        held = {log.name: log.contents() for log in logs}
    except BaseException:
        for log in logs:
            log.close()
        raise
    complete = set.intersection(
        *(
            {name for part in held[log.name] for name in (part.complete if log.is_ledger else part.sources)}
            for log in logs
        )
    )
    left = [address for address in addresses if not (address.is_file and plain(address.name) in complete)]
    again = {plain(address.name) for address in left if address.is_file}
    for log in logs:
        log.forget(again, held[log.name])
    return left
