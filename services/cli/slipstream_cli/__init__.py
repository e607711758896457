"""The command `slipstream`."""
