"""What is measured: engines, each a process of its own."""
