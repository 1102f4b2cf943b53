"""Utilities that know nothing about models: devices, processes, signals, seeds, memory and files."""
