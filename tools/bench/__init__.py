"""Measurements of Slipstream against its limits, taken in the same run: `just bench`."""
