"""What runs on a board: this folder, ``errors`` and the package's docstring are copied there (``measuring.remote.core_archive``).

- ``core``: requests in, answers out; ``timing``: visits and paced calls; ``sensors``: power, clocks, what the machine is.
- ``runners``: ONNX Runtime; ``compilers``: torch and TVM.

Only the standard library, numpy and the runtime that is measured may be imported; syntax and library of Python 3.8.
"""
