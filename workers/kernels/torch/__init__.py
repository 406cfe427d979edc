"""The operations in torch alone: on any device, in any dtype, and in an exported model."""
