"""What a stream did to a model: the geometry of its updates, the drift of its features, its new mistakes."""
