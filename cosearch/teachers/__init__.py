"""Trained agents that teach: their data, and how one is trained, read from another library, and listed.

Each teacher is a JSON record and a safetensors file of the same name.
"""
