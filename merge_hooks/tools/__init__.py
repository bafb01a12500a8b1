"""What stands behind the commands `iberian recipe`, `fisher` and `vectors`."""
