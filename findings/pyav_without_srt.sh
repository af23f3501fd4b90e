#!/usr/bin/env bash
# PyAV's wheel on Linux is built without libsrt: srt:// URLs, which FFmpeg's own packages of most distributions read,
# end in "Protocol not found". Fails if that has changed: then `srt` works as a source, and docs may say so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 || exit 69
"$folder/venv/bin/python" - <<'END'
import av

print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
try:
    av.open("srt://127.0.0.1:9?mode=caller", timeout=2)
except av.error.ProtocolNotFoundError as error:
    print("as expected:", error)  # [Errno 1330794744] Protocol not found: 'srt://127.0.0.1:9?mode=caller'
except av.error.FFmpegError as error:
    raise SystemExit(f"changed: SRT is known now ({error})")
END
