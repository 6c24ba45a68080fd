"""A run in TensorBoard, while it goes on."""
