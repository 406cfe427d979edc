"""A study's weights: where they lie, whose they are, and a design as a model of its own."""
