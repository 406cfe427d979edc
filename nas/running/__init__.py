"""A study as it runs: launching, resuming, the driver, the pools, and what holds Ray."""
