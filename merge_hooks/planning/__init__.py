"""mergekit's plan of a recipe. Only this room and `methods` touch mergekit's inside."""
