"""The user's own functions, those that remember among them."""
