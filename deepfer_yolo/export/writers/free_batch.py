"""A LiteRT file whose batch is free: litert-torch 0.10 traces one size alone, which is then taken out of the file.

Its own way (`dynamic_shapes`) stops at the first division or view of a free size ("While executing %div", 0.10.0).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

TRACED_N = 101
"""The size that is traced: a prime that no other side of a classifier's tensors is a multiple of."""


def free_batch(path: Path) -> None:
    """Rewrite the file at `path`, traced with TRACED_N images: the first side of every tensor is free, and shapes that
    are stored for RESHAPE and SLICE say -1 there. Its parity proof shows whether that holds.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    stored_shape = {schema.BuiltinOperator.RESHAPE: 1, schema.BuiltinOperator.SLICE: 2}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            content, shape = model.buffers[tensor.buffer].data, tensor.shape
            if (content is None or not len(content)) and shape is not None and len(shape) and shape[0] % TRACED_N == 0:
                tensor.shapeSignature = np.array([-1, *shape[1:]], np.int32)
                tensor.shape = np.array([shape[0] // TRACED_N, *shape[1:]], np.int32)
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            place = stored_shape.get(max(code.builtinCode, code.deprecatedBuiltinCode))
            if place is None:
                continue
            buffer = model.buffers[graph.tensors[operator.inputs[place]].buffer]
            sides = np.frombuffer(bytes(buffer.data), np.int32).copy()
            if sides[0] > 0 and sides[0] % TRACED_N == 0:
                sides[0] = -1
                buffer.data = np.frombuffer(sides.tobytes(), np.uint8)
            if hasattr(operator.builtinOptions, "newShape"):
                operator.builtinOptions.newShape = sides
    builder = flatbuffers.Builder(path.stat().st_size)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
