"""One file for each command of `iberian`; `main` lists them. Only this room prints to a terminal."""
