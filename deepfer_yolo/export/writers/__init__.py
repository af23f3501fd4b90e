"""One writer a format besides ONNX: each turns a checkpoint or an ONNX graph into the file of one run-time."""
