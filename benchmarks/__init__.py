"""Commands that make the figures in the README, and what they share."""
