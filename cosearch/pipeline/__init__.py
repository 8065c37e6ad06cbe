"""The order of the stages of one run: search, derive, retrain, finish. The only room that knows all the others."""
