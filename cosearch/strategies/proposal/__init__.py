"""Methods that propose whole architectures and are told how each one did, one file a method."""
