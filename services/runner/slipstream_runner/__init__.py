"""The runner: holds the user's graphs, takes runs from the log, executes them, publishes what they emit."""
