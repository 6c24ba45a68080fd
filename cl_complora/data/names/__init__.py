"""Names in data: of splits, of classes, and prompts that are made of several words."""
