"""Devices, in `.cg`."""
