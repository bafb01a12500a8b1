"""What the commands `iberian recipe`, `fisher` and `vectors` do."""
