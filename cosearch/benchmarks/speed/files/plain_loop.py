"""Median seconds of one call of an ONNX file: the loop that anybody writes, with nothing of this project in it."""

import statistics
import sys
import time

import numpy
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
entry = session.get_inputs()[0]
shape = [size if isinstance(size, int) else 1 for size in entry.shape]
frames = numpy.random.default_rng(0).integers(0, 255, shape).astype("uint8" if "uint8" in entry.type else "float32")
times, end = [], time.perf_counter() + float(sys.argv[3])
while time.perf_counter() < end:
    start = time.perf_counter()
    session.run(None, {entry.name: frames})
    times.append(time.perf_counter() - start)
print(statistics.median(times[len(times) // 10 :]))
