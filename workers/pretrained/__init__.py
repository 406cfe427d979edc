"""A dense pretrained model whose FFNs are cut into experts: loading, cutting, and the model."""
