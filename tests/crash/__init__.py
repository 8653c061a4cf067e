"""What may end or spoil a run at any moment, and what must be true afterwards."""
