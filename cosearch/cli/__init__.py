"""The command line: verbs that parse, call the pipeline and print; no logic of its own.

May be touched freely as long as the names, options, outputs and exit codes that scripts rely on stay.
"""
