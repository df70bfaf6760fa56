"""From two clips to a result and a report of it: all stages, their choices, and several pairs."""
