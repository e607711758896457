"""A state machine drives the real stack with commands and faults, against a small model of what must be seen."""
