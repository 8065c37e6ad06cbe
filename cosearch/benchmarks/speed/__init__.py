"""What takes how long and how much memory, measured here: each a module to run, which saves what it found beside itself."""
