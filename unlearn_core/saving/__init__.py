"""Saving of models and of run states."""
