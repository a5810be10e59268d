"""What a study will take, before any work and any download."""
