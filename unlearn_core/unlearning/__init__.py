"""The unlearning methods: rules, objectives, optimizer, scopes and the training loop."""
