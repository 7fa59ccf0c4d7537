"""The statistics that dashboards of reinforcement learning log: as exact expectations, and from a batch."""
