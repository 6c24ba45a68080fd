"""The Avalanche side: experiences, the training strategy and its plugins. The only room that imports Avalanche."""
