"""Steps of the task graph: what one call of a worker does, from plain values to a plain value."""
