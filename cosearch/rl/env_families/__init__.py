"""The families of environments: Procgen, MinAtar, quantum circuits and whatever Gymnasium knows; a new one is one file here."""
