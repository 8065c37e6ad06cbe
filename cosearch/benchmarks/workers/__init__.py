"""Many workers, really and simulated: each a module to run, which saves what it found beside itself."""
