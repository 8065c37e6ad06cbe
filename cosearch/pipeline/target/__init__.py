"""Under the target: what is measured on the device, and which architecture is next where that is over."""
