"""The Triton forms of the operations: imported by workers.kernels.dispatch alone, on a GPU."""
