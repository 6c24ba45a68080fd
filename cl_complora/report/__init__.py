"""Views of a run: tables, TensorBoard. They read results and never change them."""
