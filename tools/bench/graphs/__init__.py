"""Graphs that are measured."""
