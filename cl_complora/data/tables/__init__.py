"""Lists of pictures: CSV, JSON and text tables, manifests, CoOp's splits."""
