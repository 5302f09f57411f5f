"""How a model forgets: rules, objectives, optimizer, scopes, and the loop."""
