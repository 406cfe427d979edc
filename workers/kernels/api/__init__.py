"""The operations as layers call them."""
