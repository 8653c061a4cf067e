"""The commands, typed in this process."""
