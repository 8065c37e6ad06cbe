"""How agents learn, beside other ways and published curves: each a module to run, which saves what it found beside itself."""
