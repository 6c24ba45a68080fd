"""One picture: its files and formats, depth, range and transparency, pixels, and the cache of them."""
