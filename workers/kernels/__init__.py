"""The operations that the layers are made of."""
