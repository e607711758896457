"""Pure types of Slipstream: names, records, events, decisions. No I/O, no clock, no framework."""
