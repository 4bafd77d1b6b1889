"""Loops that LLVM does not bring to full speed by itself, written with vector instructions."""
