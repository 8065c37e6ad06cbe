"""The search stage: a supernet's updates or a strategy's proposals, the accelerator beside them, and the derivation."""
