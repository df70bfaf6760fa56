"""The machine: devices, accelerators, several processes, progress."""
