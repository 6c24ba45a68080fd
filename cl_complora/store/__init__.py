"""What a run leaves on the disk: its folder, and how it is read back."""
