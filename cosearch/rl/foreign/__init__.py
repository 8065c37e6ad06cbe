"""Policies that other packages trained: what their files hold, and how they play and teach here.

One file a reader; whatever its origin, a policy becomes an ONNX graph and one record, ``Understood``, of what was found in it.
"""
