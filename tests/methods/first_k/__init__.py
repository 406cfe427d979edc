"""A selection method in a package of its own: the example of docs/extending.md."""
