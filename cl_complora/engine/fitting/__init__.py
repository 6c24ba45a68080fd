"""How heads are fitted to the image features of a task's shots; what they answer stands in ``clip/heads``."""
