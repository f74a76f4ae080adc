"""The operator's verbs: up, down, status, doctor, ca, image."""
