"""The stages of one run, search, retrain and finish, their order and what they give each other.

The only room that knows all the others.
"""
