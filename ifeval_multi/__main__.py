"""`python -m ifeval_multi`: the same commands as `iberian ifeval`."""

from ifeval_multi.cli import ifeval

if __name__ == "__main__":
    ifeval(prog_name="python -m ifeval_multi")
