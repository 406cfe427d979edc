"""What is searched for and how: objectives, bounds, the sampler, rungs, the scheduler."""
