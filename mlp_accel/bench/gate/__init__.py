"""The command `ab`: whether one build is slower than another."""
