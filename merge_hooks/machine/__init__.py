"""What this machine grants a process: memory and processors, within containers' and Slurm's limits."""
