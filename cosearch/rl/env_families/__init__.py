"""The families of environments: Procgen, MinAtar and whatever Gymnasium knows. A new family is one file here."""
