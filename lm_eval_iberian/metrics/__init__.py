"""Scores of generated texts and of labels, by kept libraries, for tasks whose metrics lm_eval does not have."""
