#!/bin/sh
# Builds a TensorRT engine of the agent on a Jetson and times it. NOT RUN BY US: there was no Jetson and no TensorRT at hand.
#
#   sudo nvpmodel -m 0 && sudo jetson_clocks   # fixed clocks, or the figures say nothing
#   sh trtexec.sh [--fp16]                     # further words go to trtexec
#
# Reads the input's name and shape from contract.json. Frames are uint8: TensorRT takes such inputs from 8.6 on (JetPack 6); before
# that it refuses the file. Of what trtexec prints, "Latency" with --noDataTransfers and one stream is nearest to what a control loop
# sees; enqueue time is the launch alone. It is not the runtime of a latency table of ONNX Runtime: its figures do not check that target.
set -eu
cd "$(dirname "$0")"
words=$(python3 - <<'PY'
import json
contract = json.load(open("contract.json"))
print(contract["model"], contract["input_name"] + ":" + "x".join(["1", *map(str, contract["input_shape"][1:])]))
PY
)
model=${words% *} shape=${words#* }
exec trtexec --onnx="$model" --shapes="$shape" --minShapes="$shape" --optShapes="$shape" --maxShapes="$shape" \
  --saveEngine=agent.engine --noDataTransfers --useCudaGraph --useSpinWait --warmUp=500 --duration=10 --avgRuns=100 "$@"
