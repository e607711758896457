"""From records to the frames of the wire. Pure."""
