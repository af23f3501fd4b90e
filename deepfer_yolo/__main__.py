"""`python -m deepfer_yolo` is `deepfer`."""

from deepfer_yolo.cli.app import main

if __name__ == "__main__":
    main()
