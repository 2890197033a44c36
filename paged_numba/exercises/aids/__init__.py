"""What several tasks share, and the checker does not need."""
