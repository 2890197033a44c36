"""Commands that serve a real model."""
