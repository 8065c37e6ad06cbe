"""The models that are measured: blocks, cells and layers as ONNX, in float or quantised."""
