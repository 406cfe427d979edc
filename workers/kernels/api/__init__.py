"""The operations as layers call them, a file each; workers.kernels.dispatch picks the forms."""
