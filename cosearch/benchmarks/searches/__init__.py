"""What a search finds, and what of it is worth: each a module to run, which saves what it found beside itself."""
