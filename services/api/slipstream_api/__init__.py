"""The API: validates, decides, appends commands to the log, renders streams from it, reads rows. It holds no graph."""
