"""What looks at pictures, and how the concept is asked for again."""
