#!/usr/bin/env bash
# ray 2.60.0: with usage statistics off (RAY_USAGE_STATS_ENABLED=0) and no dashboard, a local cluster still runs the
# dashboard's module for statistics, which asks the cloud's metadata service (169.254.169.254, metadata.google.internal)
# where it is, and only then looks whether statistics are on. A cluster of `ray start` also reports that they are off.
# The address is where `requests` goes with a proxy: an address of this machine in http_proxy keeps it here.
# Seen: "with statistics off, asked for: http://169.254.169.254/metadata/instance http://metadata.google.internal/…
# http://169.254.169.254/latest/meta-data/".
set -euo pipefail
folder=$(mktemp -d /tmp/ro-XXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[data]==2.60.0" || exit 69
RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled HOME="$folder" "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import http.server
import os
import sys
import threading
import time

asked = []


class Proxy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path.partition("?")[0])
        self.send_response(404)
        self.end_headers()

    def log_message(self, *words):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["http_proxy"] = f"http://127.0.0.1:{server.server_port}"
os.environ["no_proxy"] = ""
import ray  # noqa: E402

ray.init(address="local", num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[1], log_to_driver=False)
for _ in range(60):
    if len(asked) > 2:
        break
    time.sleep(1)
ray.shutdown()
print("with statistics off, asked for:", *asked)
sys.exit(not any("169.254.169.254" in url for url in asked))
PYTHON
