#!/usr/bin/env bash
# ONNX Runtime 1.32.0: `quantize_static` with `CalibrationMethod.Entropy` clips nothing: it gives MinMax's range,
# outlier and all. It seeks the best cut among ranges of 128 bins and more, since it wants 128 levels, and its histogram
# has 128 bins: the whole range is the only candidate. `quantize_static` has no option for more bins, the calibrator
# itself does (`num_bins`); `Percentile` does clip.
# Seen on |noise| with one pixel of 40: "upper end: MinMax 40.0, Entropy 40.0, Percentile 99.9 3.38; Entropy of 512 bins
# 16.25".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6 || exit 69
cd "$folder"
"$folder/venv/bin/python" - 2> log <<'PYTHON'
import contextlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static
from onnxruntime.quantization.calibrate import create_calibrator

images = np.abs(np.random.RandomState(0).randn(16, 1, 1, 16, 16)).astype(np.float32)
images[5, 0, 0, 3, 3] = 40
node = helper.make_node("Conv", ["x", "w"], ["y"])
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 16, 16]) for name in "xy"]
weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
graph = helper.make_graph([node], "conv", ends[:1], ends[1:], [weight])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "fp32.onnx")


class Reader(CalibrationDataReader):
    def __init__(self):
        self.left = iter(images)

    def get_next(self):
        image = next(self.left, None)
        return None if image is None else {"x": image}


def end(method, **options):
    quantize_static("fp32.onnx", "int8.onnx", Reader(), calibrate_method=method, extra_options=options)
    scale, = (tensor for tensor in onnx.load("int8.onnx").graph.initializer if tensor.name == "x_scale")
    return round(float(numpy_helper.to_array(scale)) * 255, 2)


with contextlib.redirect_stdout(sys.stderr):  # the calibrators print their bins
    found = [end(CalibrationMethod.MinMax), end(CalibrationMethod.Entropy),
             end(CalibrationMethod.Percentile, CalibPercentile=99.9)]
    calibrator = create_calibrator("fp32.onnx", calibrate_method=CalibrationMethod.Entropy,
                                   augmented_model_path="augmented.onnx", extra_options={"num_bins": 512})
    calibrator.collect_data(Reader())
    found.append(round(float(calibrator.compute_data()["x"].range_value[1]), 2))
print("upper end: MinMax {}, Entropy {}, Percentile 99.9 {}; Entropy of 512 bins {}".format(*found))
sys.exit(not (found[0] == found[1] == 40 and max(found[2:]) < 20))
PYTHON
