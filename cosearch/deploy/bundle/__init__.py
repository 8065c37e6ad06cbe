"""The bundle: a folder with the exported agent and all that is needed to run it on its device, without this package.

``contract`` says what the agent takes, gives and was made for, ``description`` reads that from a run folder; ``graph`` puts it
into the ONNX file, with the lowest opset that the graph needs and, as an option, the choice of the action; ``folder`` writes the
bundle.
``files`` are copied into it as they are.
"""
