"""Training runs: from data and settings to a history with trained parameters."""
