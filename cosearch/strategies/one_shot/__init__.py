"""Methods that train a supernet along drawn paths and then score proposed architectures with its weights, one file a method."""
