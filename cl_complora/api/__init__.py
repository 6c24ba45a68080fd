"""What ``import cl_complora`` offers to scripts and notebooks: runs and comparisons as objects that show
themselves."""
