#!/usr/bin/env bash
# tritonclient 2.73.0 over HTTP: `async_infer` returns at once, but what the socket does not take within its 10 ms is
# sent by a greenlet, which runs only while the caller waits inside the library. A batch of some megabytes therefore
# leaves when `get_result()` is called: work done meanwhile overlaps with nothing. A small request is on its way at
# once. (Each call also sleeps those 10 ms, and without `concurrency=` the client sends one request at a time.)
# Seen: "whole request at the server while the caller worked for 1.5 s: 1 kB True, 50 MB False".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "tritonclient[http]==2.73.0" numpy==2.4.6 || exit 69
"$folder/venv/bin/python" - <<'PYTHON'
import http.server
import sys
import threading
import time

import numpy as np
import tritonclient.http as triton

ANSWER = b'{"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}]}'
arrived = threading.Event()


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        arrived.set()
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = triton.InferenceServerClient(f"127.0.0.1:{server.server_port}", concurrency=4, network_timeout=60)


def image_of(size):
    image = triton.InferInput("image", [size], "UINT8")
    image.set_data_from_numpy(np.zeros(size, np.uint8))
    return image


def is_sent_meanwhile(size):
    client.infer("m", [image_of(1)])  # so that the connection is open
    arrived.clear()
    answer = client.async_infer("m", [image_of(size)])
    time.sleep(1.5)  # what the caller does meanwhile
    was_sent = arrived.is_set()
    assert answer.get_result().as_numpy("y")[0] == 0.5
    return was_sent


small, large = is_sent_meanwhile(1_000), is_sent_meanwhile(50_000_000)
print(f"whole request at the server while the caller worked for 1.5 s: 1 kB {small}, 50 MB {large}")
sys.exit(not small or large)
PYTHON
