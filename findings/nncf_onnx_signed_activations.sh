#!/usr/bin/env bash
# nncf 3.4.0 and ONNX Runtime 1.32.0 on x86: `nncf.quantize` of an ONNX model makes signed activations, as
# `quantize_static` does by its default too, and the CPU provider fuses none of those convolutions: they run in float
# between steps that quantise, slower than the fp32 file (16.8 against 8.5 ms of processor time for 8 images; 5.4 with
# unsigned ones). QUInt8 activations are fused.
# Seen on x86-64: "convolutions in int8 after ONNX Runtime's optimisation, of 3: nncf 0, quantize_static 0, with
# QUInt8 3".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet nncf==3.4.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 || exit 69
cd "$folder"
"$folder/venv/bin/python" - 2> log <<'PYTHON'
import contextlib
import logging
import platform
import sys

import nncf
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

assert platform.machine() == "x86_64", "this is about x86-64"
nncf.set_log_level(logging.ERROR)
random = np.random.RandomState(0)
nodes, weights, last, channels = [], [], "x", 3
for index in range(3):
    kernel = (random.randn(32, channels, 3, 3) * 0.1).astype(np.float32)
    weights.append(numpy_helper.from_array(kernel, f"w{index}"))
    nodes += [helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1], name=f"conv{index}"),
              helper.make_node("Sigmoid", [f"c{index}"], [f"s{index}"], name=f"sigmoid{index}"),
              helper.make_node("Mul", [f"c{index}", f"s{index}"], [f"h{index}"], name=f"mul{index}")]
    last, channels = f"h{index}", 32
nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"], name="pool"))
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 3, 32, 32]), ("y", ["n", 32, 1, 1]))]
graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.save(model, "float.onnx")
images = [{"x": random.rand(1, 3, 32, 32).astype(np.float32)} for _ in range(10)]


class Reader(CalibrationDataReader):
    def __init__(self):
        self.images = iter(images)

    def get_next(self):
        return next(self.images, None)


def n_fused(path):
    options = ort.SessionOptions()
    options.optimized_model_filepath = "optimised.onnx"
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return sum(node.op_type == "QLinearConv" for node in onnx.load("optimised.onnx").graph.node)


with contextlib.redirect_stdout(sys.stderr):  # its progress
    onnx.save(nncf.quantize(model, nncf.Dataset(images), subset_size=10), "nncf.onnx")
quantize_static("float.onnx", "signed.onnx", Reader())
quantize_static("float.onnx", "unsigned.onnx", Reader(), activation_type=QuantType.QUInt8)
counts = [n_fused(f"{name}.onnx") for name in ("nncf", "signed", "unsigned")]
print("convolutions in int8 after ONNX Runtime's optimisation, of 3:",
      "nncf {}, quantize_static {}, with QUInt8 {}".format(*counts))
sys.exit(counts != [0, 0, 3])
PYTHON
