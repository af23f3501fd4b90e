"""`python -m deepfer_yolo` is `deepfer`."""

import gc
import os
import signal


def main() -> None:
    """The program; an interrupt while it is imported ends it without a traceback, as one does later."""
    # Plugins of Pydantic would be looked for in every package that is installed, at 10 ms and more; none is used here.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    gc.disable()  # until the command is there: what is imported stays, and to look through it takes 20 ms a time
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nohup and background jobs ignore it
    if is_ours:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from deepfer_yolo.cli.app import main as run

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
