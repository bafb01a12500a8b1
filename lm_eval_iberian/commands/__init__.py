"""One file a command of `iberian`; `main` lists them. Only here is anything printed for a terminal."""
