"""What runs on a worker: corpora, layers, the proxy language model and its training."""
