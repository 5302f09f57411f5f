"""Classifiers, CLIP and NudeNet, and probes that try to bring the concept back."""
