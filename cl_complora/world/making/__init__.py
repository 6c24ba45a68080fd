"""How the embedded world's files and pictures are made; not part of the installed package."""
