"""The stages of one run, search, retrain and finish, their order and what they give each other.

``search`` holds the first stage, ``agent`` the two after it; ``run`` is their order. The only room that knows all the others.
"""
