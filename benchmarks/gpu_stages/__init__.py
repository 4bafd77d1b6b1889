"""What `gpu_study.py` measures: rows of our paths (`ours`) and of the peers (`peers`), each in a process of its own (`rows`)."""
