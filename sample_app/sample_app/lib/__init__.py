"""What more than one part of the application needs."""
