"""What this machine or cluster offers, what would fail on it, and the remedy. It works where half of the libraries do not."""
