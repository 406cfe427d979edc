"""Training a proxy: the loop, its meter and schedule, the optimizers, what it carries, measures."""
