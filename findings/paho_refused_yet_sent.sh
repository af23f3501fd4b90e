#!/usr/bin/env bash
# paho-mqtt 2.2.0: `publish` without a connection returns MQTT_ERR_NO_CONN, and its `is_published()` raises "Message
# publish failed"; a message of QoS 1 is kept all the same and sent at the next connect, after what was published
# later, so whoever publishes again on that error sends it twice. One of QoS 0 is lost, as the error says. Between
# `connect()` and the broker's answer both are sent.
# Seen: "refused: qos 0 code 4, qos 1 code 4; the broker got: early 0, early 1, refused 1".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet paho-mqtt==2.2.0 || exit 69
"$folder/venv/bin/python" - <<'PYTHON'
import socket
import sys
import threading
import time

import paho.mqtt.client as mqtt

got = []


def serve(listener):
    """As much of a broker as it takes: CONNACK after 0.3 s, PUBACK, a list of what came, each under 128 bytes."""
    link, _ = listener.accept()
    stream = link.makefile("rb")
    while head := stream.read(2):
        kind, qos, body = head[0] >> 4, head[0] >> 1 & 3, stream.read(head[1])
        if kind == 1:
            time.sleep(0.3)
            link.sendall(b"\x20\x02\x00\x00")
        if kind == 3:
            payload = body[2 + body[1]:]
            if qos:
                link.sendall(b"\x40\x02" + payload[:2])
            got.append(payload[2 * bool(qos):].decode())


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
codes = [int(client.publish("faces", f"refused {qos}", qos=qos).rc) for qos in (0, 1)]
client.connect("127.0.0.1", listener.getsockname()[1])
for qos in (0, 1):
    client.publish("faces", f"early {qos}", qos=qos)
client.loop_start()
time.sleep(2)
client.loop_stop()
print("refused: qos 0 code {}, qos 1 code {};".format(*codes), "the broker got:", ", ".join(got))
sys.exit((codes, got) != ([4, 4], ["early 0", "early 1", "refused 1"]))
PYTHON
