"""TurboGears finds templates by dotted names: their folder is a package."""
