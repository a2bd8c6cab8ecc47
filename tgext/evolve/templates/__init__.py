"""What people see in a browser. A package, because TurboGears looks for templates by dotted names."""
