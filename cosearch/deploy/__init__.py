"""The agent as a file: export, parity, evaluation, measurement and the clip.

Everything here works on an exported agent or makes one; nothing here trains or writes a page.
"""
