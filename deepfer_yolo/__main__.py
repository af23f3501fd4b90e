"""`python -m deepfer_yolo` is `deepfer`."""

import os
import signal


def main() -> None:
    """The program; an interrupt while it is imported ends it without a traceback, as one does later."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nohup and background jobs ignore it
    if is_ours:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from deepfer_yolo.cli.app import main as run

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
