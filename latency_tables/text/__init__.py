"""What is read and written: files that users give and keep, the terminal, Markdown, spans of time in words.

- ``reading``, ``fields``: JSON, TOML and CSV with limits; typed fields of them.
- ``writing``: files whole or not at all.
- ``terminal``, ``markdown``: foreign text becomes plain text, names become words.
- ``spans``: how long a piece of work takes, in words.
"""
