"""What keeps records for a while: joins of streams, and the first of what is near each other."""
