"""mergekit's plan of a recipe. All touches on mergekit's inside are here and in `methods`."""
