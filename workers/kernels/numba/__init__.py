"""The operations' forms for a CPU, compiled by numba when first called."""
