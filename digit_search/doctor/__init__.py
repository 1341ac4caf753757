"""What this machine or a cluster offers, what would fail on it, and the remedy. Works even where most libraries are missing."""
