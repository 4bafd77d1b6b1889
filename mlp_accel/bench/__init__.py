"""Measuring epoch times: the protocol, the worker processes, the environment report and the result files."""
