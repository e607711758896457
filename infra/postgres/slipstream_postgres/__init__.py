"""Part of Slipstream."""
