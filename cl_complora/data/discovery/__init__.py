"""What `init` makes of folders that it has never seen: kinds, settings that suit, retention."""
