#!/usr/bin/env bash
# ONNX Runtime 1.32.0: two calibration options of `quantize_static` are not what their text says. With
# `CalibMaxIntermediateOutputs`, which "will produce the same result as all computing with None, but is more memory
# efficient", every full set of outputs is thrown away before it is looked at: only the images after the last full set
# give the range, and where none is over it ends in "No data is collected.". `CalibMovingAverageConstant` is not read:
# the ends are the plain mean over all images, unless `CalibStridedMinMax` is set too.
# Seen with ten images, the brightest first, of 0 to 10, 9 … 1: "upper end: all 10.0, CalibMaxIntermediateOutputs=4
# 2.0, =5 'No data is collected.'; moving average, constant 0.01 5.5, 0.9 5.5; strided by 1 9.56, 1.11".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6 || exit 69
cd "$folder"
"$folder/venv/bin/python" - 2> log <<'PYTHON'
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

images = [np.linspace(0, brightest, 64, dtype=np.float32).reshape(1, 1, 8, 8) for brightest in range(10, 0, -1)]
node = helper.make_node("Conv", ["x", "w"], ["y"])
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 8, 8]) for name in "xy"]
weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
graph = helper.make_graph([node], "conv", ends[:1], ends[1:], [weight])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "fp32.onnx")


class Reader(CalibrationDataReader):
    def __init__(self):
        self.set_range(0, len(images))

    def __len__(self):
        return len(images)

    def set_range(self, start_index, end_index):
        self.left = iter(images[start_index:end_index])

    def get_next(self):
        image = next(self.left, None)
        return None if image is None else {"x": image}


def end(**options):
    try:
        quantize_static("fp32.onnx", "int8.onnx", Reader(), extra_options=options)
    except ValueError as error:
        return str(error)
    scale, = (tensor for tensor in onnx.load("int8.onnx").graph.initializer if tensor.name == "x_scale")
    return round(float(numpy_helper.to_array(scale)) * 255, 2)


outputs = [end(), end(CalibMaxIntermediateOutputs=4), end(CalibMaxIntermediateOutputs=5)]
average = {"CalibMovingAverage": True}
plain = [end(**average, CalibMovingAverageConstant=constant) for constant in (0.01, 0.9)]
strided = [end(**average, CalibMovingAverageConstant=constant, CalibStridedMinMax=1) for constant in (0.01, 0.9)]
print("upper end: all {}, CalibMaxIntermediateOutputs=4 {}, =5 {!r};".format(*outputs),
      "moving average, constant 0.01 {}, 0.9 {}; strided by 1 {}, {}".format(*plain, *strided))
sys.exit(not (outputs == [10, 2, "No data is collected."] and plain == [5.5, 5.5] and strided[0] > 9 > 2 > strided[1]))
PYTHON
