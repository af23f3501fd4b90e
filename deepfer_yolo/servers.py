"""The settings of the local servers, `serve` and `review`, declared as config.py declares all others."""

from __future__ import annotations

from typing import Literal

from deepfer_yolo.config import LabelConfig, Split
from deepfer_yolo.presets import Config, Count, Share, Texts, Threads, key

Doubt = Literal["conflicts", "label-errors", "duplicates", "low-quality", "uncertain", "all"]


class ServerConfig(Config):
    """Who may reach a local server, and how much one request may hold: `serve` and `review` alike."""

    host: str = key("127.0.0.1", "Address to listen on; any but this machine's own needs a token.")
    port: int = key(8000, "Port to listen on; 0 takes a free one.", ge=0, le=65535)
    token: str | None = key(None, "What clients must know.", shown="none", envvar="DEEPFER_TOKEN")
    allow_host: Texts = key(
        (), "Another name of this server, which needs a token; repeatable.", shown="none", metavar="NAME"
    )
    root_path: str = key("", "Path under which a proxy publishes the server: /faces.", shown="X-Forwarded-Prefix")
    max_body_mb: float = key(64.0, "Size of one request's body.", gt=0, le=2000)
    max_uploads: int = key(64, "Uploads at once, of all clients.", ge=1, le=10_000)
    max_memory_mb: float = key(512.0, "Size of all bodies under way together.", gt=0)
    max_connections: int = key(256, "Connections at once, of all clients.", ge=1, le=100_000)
    rate_per_s: float = key(100.0, "Requests a second of one client; 0: no limit.", ge=0)
    burst: Count = key(200, "Requests at once of one client.")
    head_timeout_s: float = key(10.0, "Seconds in which a request's head must arrive.", gt=0, le=600)
    body_timeout_s: float = key(60.0, "Seconds in which a body must arrive, or an answer be read.", gt=0, le=3600)
    stop_timeout_s: float = key(10.0, "Seconds that requests under way have left when the server stops.", gt=0, le=600)


class ServeConfig(LabelConfig, ServerConfig):
    """`deepfer serve`."""

    local: bool = key(
        False, "Label in the visitor's browser: the server hands out files and never sees an image.", shown=""
    )
    max_batch: int = key(32, "Faces labelled in one inference at most.", ge=1, le=1024)
    max_wait_ms: float = key(2.0, "How long a face waits for company.", ge=0, le=1000)
    workers: Threads = key(2, "Processes that decode uploads.")
    worker_memory_mb: int = key(512, "What a decode process may allocate beyond its libraries.", ge=64)
    decode_timeout_s: float = key(10.0, "Seconds that the decoding of an image may take.", gt=0, le=600)
    video_timeout_s: float = key(120.0, "Seconds that a video may take.", gt=0, le=3600)
    max_pictures: int = key(64, "Images in one request.", ge=1, le=10_000)
    max_megapixels: float = key(24.0, "Size of an image, checked before decoding.", gt=0, le=200)
    max_video_s: float = key(60.0, "Length of a video.", gt=0, le=3600)
    video_fps: float = key(10.0, "Frames a second of a video that are looked at.", gt=0, le=60)
    max_cameras: int = key(4, "Cameras at once, of all clients.", ge=0, le=1000)


class ReviewConfig(ServerConfig):
    """`deepfer review`."""

    only: Doubt | None = key(
        None,
        "Only conflicts, label-errors, duplicates, low-quality, uncertain, or all images.",
        shown="all that an audit finds",
    )
    label: Texts = key((), "Only images with this label. Repeatable.", shown="all")
    split: Split | None = key(None, "Only this split.", shown="train; with --held-out val and test")
    held_out: bool = key(False, "Review val and test, whose corrections are kept apart.", shown="")
    blind: bool = key(False, "Hide label, votes and the model's answer until after the choice.", shown="")
    reviewer: str | None = key(None, "Who decides.", shown="asked on the page; may stay empty", max_length=80)
    second: bool = key(False, "Also what other reviewers have decided: a second opinion, for kappa.", shown="")
    repeat: Share = key(0.05, "Share of the images that are shown a second time, to measure consistency.")
    limit: int | None = key(None, "The worst so many images.", shown="no limit", ge=1)
    near: bool = key(True, "Look for near copies, too, not exact ones alone.", flags="--near/--no-near")
    workers: Threads = key(2, "Threads that decode.")
    threads: Threads = key(2, "Threads that run the model.")
    lease_s: float = key(120.0, "Seconds of silence after which a browser's images go to others.", gt=0, le=86_400)
    port: int = key(8010, "Port to listen on; 0 takes a free one.", ge=0, le=65535)
    max_body_mb: float = key(0.1, "Size of one request's body.", gt=0, le=2000)
    rate_per_s: float = key(2000.0, "Requests a second of one client; 0: no limit.", ge=0)
    burst: Count = key(4000, "Requests at once of one client.")
