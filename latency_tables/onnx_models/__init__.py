"""The ONNX models that are timed: blocks in their context, whole networks, single primitives, and their int8 form.

- ``builder``: nodes and weights collected into a checked model.
- ``blocks``: blocks and networks; ``cells``, ``reversible`` and ``memory``: some kinds of blocks; ``layers``: single primitives.
- ``quantise``: the int8 form.

A new kind of block gets its nodes here and its primitives in ``OpSpec.layers``. No torch.
"""
